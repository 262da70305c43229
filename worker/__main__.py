"""`stateward-worker`: the program on a host. The only place of it that exits."""

from __future__ import annotations

import sys

import typer

from common.program import exit_code_table, run_program, take_flags
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


def main() -> None:
    """Entry point of the program."""
    flags, arguments = take_flags(sys.argv[1:], ("--debug",))
    app = build()
    sys.exit(
        run_program(
            lambda: app(arguments, standalone_mode=False), debug="--debug" in flags, as_json="--json" in arguments
        )
    )


if __name__ == "__main__":
    main()
