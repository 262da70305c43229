"""`stateward vault …`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from common.contracts.operator import CredentialsCreate, VaultCreate, VaultView
from common.errors import UsageError
from common.privatefiles import write_private
from coordinator.cli.checked import checked
from coordinator.cli.context import context_of

app = typer.Typer(help="Vaults: make, look, hand out credentials.")

_DAY_S = 86_400


@app.command()
def create(
    context: typer.Context, name: str, region: Annotated[str, typer.Option(help="shown and checked at enrolment")] = ""
) -> None:
    """Make a vault: a bucket with versions and locks, and its first objects."""
    ours = context_of(context)
    with ours.client() as api:
        view = api.create_vault(checked(VaultCreate, name=name, region=region))
    ours.show(view, _rows(view), name=view.id)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the vaults."""
    ours = context_of(context)
    with ours.client() as api:
        ours.show_all(
            api.vaults(),
            ("ID", "NAME", "STATE", "CREATED"),
            lambda vault: (vault.id, vault.name, vault.state, vault.created),
            empty="No vault yet: make one with `stateward vault create NAME`.",
        )


@app.command()
def show(context: typer.Context, vault: str) -> None:
    """Show one vault, by name or id."""
    ours = context_of(context)
    with ours.client() as api:
        view = api.vault(vault)
    ours.show(view, _rows(view), name=view.id)


@app.command()
def credentials(
    context: typer.Context,
    vault: str,
    out: Annotated[Path | None, typer.Option(help="file to write (0600); stdout unless given")] = None,
    uses: Annotated[int, typer.Option(help="how many hosts may register with it")] = 1,
    days: Annotated[float, typer.Option(help="how long it is valid")] = 10,
    hosts: Annotated[str, typer.Option(help="pattern of host names")] = "*",
    label: Annotated[list[str] | None, typer.Option(help="name=value, given to hosts that register")] = None,
    region: Annotated[str, typer.Option()] = "",
) -> None:
    """Make a vault credentials file, with which hosts register. It is a secret."""
    ours = context_of(context)
    wanted = checked(
        CredentialsCreate,
        labels=_labels(label or []),
        region=region,
        host_pattern=hosts,
        uses=uses,
        valid_s=int(days * _DAY_S),
    )
    with ours.client() as api:
        view = api.create_credentials(vault, wanted)
    if out is not None:
        document = {"stateward": "vault credentials", "token": view.token}
        write_private(out, json.dumps(document).encode() + b"\n")
        ours.messages.print(f"Written to {out}; valid until {view.expires.isoformat()}.", highlight=False)
    elif ours.options.json:
        ours.print_json(view)
    else:
        ours.line(view.token)


def _rows(view: VaultView) -> list[tuple[str, object]]:
    return [
        ("id", view.id),
        ("name", view.name),
        ("state", view.state),
        ("url", view.url),
        ("region", view.region),
        ("created", view.created),
    ]


def _labels(given: list[str]) -> dict[str, str]:
    labels = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise UsageError(f"Option --label: {each!r} is not name=value.")
        labels[name] = value
    return labels
