"""`stateward point …`"""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.context import context_of, size

app = typer.Typer(help="Recovery points: look.")


@app.command("list")
def list_(
    context: typer.Context, host: Annotated[str | None, typer.Option(help="of this host, by name or id")] = None
) -> None:
    """List recovery points, newest first."""
    ours = context_of(context)
    with ours.client() as api:
        ours.show_all(
            api.points(host=host),
            ("POINT", "HOST", "RECEIVED", "VERDICT", "FILES", "SIZE", "NEW", "WARNINGS"),
            lambda point: (
                point.point,
                point.host_name,
                point.received,
                point.verdict,
                point.files,
                size(point.logical_bytes),
                size(point.new_bytes),
                point.warnings,
            ),
            empty="No recovery point yet: `stateward backup HOST --wait` makes one.",
        )


@app.command()
def show(context: typer.Context, point: str) -> None:
    """Show one recovery point."""
    ours = context_of(context)
    with ours.client() as api:
        view = api.point(point)
    rows: list[tuple[str, object]] = [
        ("point", view.point),
        ("host", f"{view.host_name} ({view.host_id})"),
        ("vault", view.vault_id),
        ("verdict", view.verdict),
        ("number", view.seq),
        ("created", view.created),
        ("received", view.received),
        ("files", view.files),
        ("size", size(view.logical_bytes)),
        ("new", size(view.new_bytes)),
        ("stored", size(view.stored_bytes)),
        ("warnings", view.warnings),
        ("consistency", view.consistency),
    ]
    ours.show(view, rows, name=view.point)
