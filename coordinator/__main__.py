"""The program `stateward`: the only place of the coordinator that exits."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime

import typer
from rich.console import Console

from common.errors import Cancelled, ExitCode, StatewardError, UsageError
from coordinator.cli.context import Context
from coordinator.cli.main import Registration, build_app
from coordinator.cli.options import split_options
from coordinator.embedded.commands import register as embedded

EXTRAS: tuple[Registration, ...] = (embedded,)
"""Commands that are registered from elsewhere: `up` and `quickstart`."""


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code of one call of the program; every error has been told on stderr."""
    messages = Console(stderr=True, soft_wrap=True)
    try:
        return _call(arguments, messages)
    except typer.Exit as error:
        return int(error.exit_code)
    except BrokenPipeError:
        return int(ExitCode.DONE)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every error is told, bugs too
        ours = _as_ours(error)
        _tell(ours, messages, as_json="--json" in arguments, cause=error if "--debug" in arguments else None)
        return int(ours.exit_code)


def _call(arguments: Sequence[str], messages: Console) -> int:
    options, rest = split_options(arguments)
    context = Context(options=options, clock=_now, sleep=time.sleep, console=Console(), messages=messages)
    command = typer.main.get_command(build_app(EXTRAS))
    code = command.main(args=rest, prog_name="stateward", standalone_mode=False, obj=context)
    return code if isinstance(code, int) else 0


def _as_ours(error: BaseException) -> StatewardError:
    if isinstance(error, StatewardError):
        return error
    explain = getattr(error, "format_message", None)
    if explain is not None:  # typer's own, of what was typed
        return UsageError(explain())
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Cancelled("Ended by Ctrl-C.")
    return StatewardError(f"Unexpected error: {type(error).__name__}: {error}")


def _tell(error: StatewardError, messages: Console, *, as_json: bool, cause: BaseException | None) -> None:
    """One sentence of what happened, one of what to do, and the stable code."""
    if as_json:
        document = {"code": error.code, "message": error.message, "next_step": error.next_step, "page": error.page}
        messages.print(json.dumps({"error": document}), markup=False, highlight=False)
    else:
        words = f"Error: {error.message}\n{error.next_step}\n[{error.code}: {error.page}]"
        messages.print(words, markup=False, highlight=False)
    if cause is not None:
        messages.print("".join(traceback.format_exception(cause)), markup=False, highlight=False)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
