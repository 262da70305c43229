"""How both programs begin and end: one place that turns errors into a sentence, a next step and an exit code.

Only the `__main__` modules call this; nothing below them exits.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from typer.exceptions import TyperException

from common.errors import Cancelled, ExitCode, StatewardError, UsageError


class Interrupted(BaseException):
    """Ctrl-C. No KeyboardInterrupt: typer ends with code 130 for it, and Python by the signal, whoever caught it, when it
    struck inside of an `exec`."""


def exit_code_table() -> str:
    """For `--help`."""
    return "\n\n".join(["Exit codes:", *(f"{code.value:>2}  {code.meaning}" for code in ExitCode)])


def run_program(command: Callable[[], int | None], *, debug: bool, as_json: bool) -> int:
    """Run `command` and give the exit code; whatever goes wrong is said on stderr.

    With `as_json` the error is one JSON document there. A stack trace is shown with `debug` only; without it a bug's
    trace goes into a file of this user, which the message names.
    """
    try:
        with _ctrl_c_interrupts():
            return int(command() or ExitCode.DONE)
    except typer.Exit as stop:
        return int(stop.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone: nothing is left to be said to
        return ExitCode.DONE
    except (Exception, Interrupted) as error:  # noqa: BLE001  # the last resort of a program
        if debug:
            traceback.print_exc()
        return say(_in_words(error, debug=debug), as_json=as_json)


@contextmanager
def _ctrl_c_interrupts() -> Iterator[None]:
    """Where Ctrl-C means what Python made it mean; not where somebody had it ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(_number: int, _frame: object) -> None:
    raise Interrupted


def _in_words(error: BaseException, *, debug: bool) -> StatewardError:
    if isinstance(error, StatewardError):
        return error
    if isinstance(error, typer.Abort | Interrupted):
        return Cancelled("Cancelled by Ctrl-C.")
    if isinstance(error, TyperException):
        return UsageError(f"{error.format_message().rstrip('.')}.")
    where = "shown above" if debug else _report(error)
    return StatewardError(f"Unexpected error ({type(error).__name__}); the report is {where}.")


def say(error: StatewardError, *, as_json: bool) -> int:
    """Message, next step, stable code and page, on stderr."""
    if as_json:
        document = {"code": error.code, "message": error.message, "next_step": error.next_step, "page": error.page}
        print(json.dumps({"error": document}), file=sys.stderr)  # noqa: T201  # the program's own voice
    else:
        print(f"Error: {error.message}\n{error.next_step}\n[{error.code}: {error.page}]", file=sys.stderr)  # noqa: T201
    return error.exit_code


def take_flags(arguments: Sequence[str], flags: Sequence[str]) -> tuple[set[str], list[str]]:
    """Flags that may stand anywhere, and what remains. What follows `--` is left alone."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    found = {each for each in arguments[:end] if each in flags}
    return found, [each for at, each in enumerate(arguments) if at >= end or each not in flags]


def _report(error: BaseException) -> Path:
    """The trace in a new file that only this user can read."""
    with tempfile.NamedTemporaryFile("w", prefix="stateward-report-", suffix=".txt", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    return Path(file.name)
