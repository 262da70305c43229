"""`stateward serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.telemetry import configure_logging
from coordinator.cli.context import context_of
from coordinator.serve import ALL_ROLES, Role
from coordinator.serve import serve as run
from coordinator.settings import load_settings


def serve(
    context: typer.Context,
    role: Annotated[list[Role] | None, typer.Option(help="this role alone; several times; all unless given")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on (STATEWARD_LISTEN_HOST)")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on; 0 takes a free one")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file (STATEWARD_CONFIG)")] = None,
) -> None:
    """Run the coordinator in the foreground: API, scheduler and janitor in one process unless told."""
    ours = context_of(context)
    settings = load_settings(data=ours.options.data, listen_host=host, listen_port=port, config=config)
    configure_logging(json=settings.log_json or ours.options.json)
    run(settings, clock=ours.clock, roles=frozenset(role) if role else ALL_ROLES)
