"""All commands of `stateward-worker`, as one typer application."""

from __future__ import annotations

import typer

from common.program import exit_code_table
from worker.cli.fleet import add_commands
from worker.cli.inspect import add_inspect_commands
from worker.cli.standalone import add_standalone_commands


def build() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name="stateward-worker",
        help="Backs up this host's system state and files into a vault, and recovers them.",
        epilog=exit_code_table(),
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    add_standalone_commands(app)
    add_inspect_commands(app)
    add_commands(app)
    return app
