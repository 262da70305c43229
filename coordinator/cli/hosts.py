"""`stateward host …`"""

from __future__ import annotations

import typer

from common.contracts.operator import HostView
from coordinator.cli.context import context_of

app = typer.Typer(help="Hosts: look, remove.")


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the hosts."""
    ours = context_of(context)
    with ours.client() as api:
        ours.show_all(
            api.hosts(),
            ("ID", "NAME", "STATE", "LAST POINT", "LAST SEEN", "RESULT"),
            lambda host: (host.id, host.name, host.state, host.last_point, host.last_seen, host.last_result or "ok"),
            empty="No host yet: `stateward vault credentials` makes the file with which one registers.",
        )


@app.command()
def show(context: typer.Context, host: str) -> None:
    """Show one host, by name or id."""
    ours = context_of(context)
    with ours.client() as api:
        view = api.host(host)
    ours.show(view, _rows(view), name=view.id)


@app.command()
def remove(context: typer.Context, host: str) -> None:
    """End a host's access: queue and API now, storage within the hour. Its recovery points stay."""
    ours = context_of(context)
    with ours.client() as api:
        view = api.remove_host(host)
    ours.show(view, _rows(view), name=view.id)


def _rows(view: HostView) -> list[tuple[str, object]]:
    return [
        ("id", view.id),
        ("name", view.name),
        ("state", view.state),
        ("vault", view.vault_id),
        ("labels", view.labels),
        ("region", view.region),
        ("system", view.os),
        ("agent", view.agent_version),
        ("last seen", view.last_seen),
        ("last point", view.last_point),
        ("last result", view.last_result or "ok"),
    ]
