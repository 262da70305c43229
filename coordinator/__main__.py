"""The program `stateward`: the only place of the coordinator that exits."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from common.program import run_program

WIDE = 250
"""Columns of a table that goes into a file or a pipe: nothing is folded there."""


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code of one call of the program; every error has been told on stderr."""
    return run_program(lambda: _call(arguments), debug="--debug" in arguments, as_json="--json" in arguments)


def _call(arguments: Sequence[str]) -> int:
    """Loads the program and runs it: Ctrl-C during the second that takes ends like Ctrl-C later, in words."""
    import typer  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    from coordinator.cli.context import Context  # noqa: PLC0415
    from coordinator.cli.main import build_app  # noqa: PLC0415
    from coordinator.cli.options import split_options  # noqa: PLC0415
    from coordinator.embedded.commands import register as embedded  # noqa: PLC0415

    options, rest = split_options(arguments)
    messages = Console(stderr=True, soft_wrap=True)
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    context = Context(options=options, clock=_now, sleep=time.sleep, console=console, messages=messages)
    command = typer.main.get_command(build_app((embedded,)))
    code = command.main(args=rest, prog_name="stateward", standalone_mode=False, obj=context)
    return code if isinstance(code, int) else 0


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
