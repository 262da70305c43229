"""The program `stateward`: the only place of the coordinator that exits."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import typer
from rich.console import Console

from common.program import run_program
from coordinator.cli.context import Context
from coordinator.cli.main import Registration, build_app
from coordinator.cli.options import split_options
from coordinator.embedded.commands import register as embedded

EXTRAS: tuple[Registration, ...] = (embedded,)
"""Commands that are registered from elsewhere."""


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code of one call of the program; every error has been told on stderr."""
    return run_program(lambda: _call(arguments), debug="--debug" in arguments, as_json="--json" in arguments)


def _call(arguments: Sequence[str]) -> int:
    options, rest = split_options(arguments)
    messages = Console(stderr=True, soft_wrap=True)
    context = Context(options=options, clock=_now, sleep=time.sleep, console=Console(), messages=messages)
    command = typer.main.get_command(build_app(EXTRAS))
    code = command.main(args=rest, prog_name="stateward", standalone_mode=False, obj=context)
    return code if isinstance(code, int) else 0


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
