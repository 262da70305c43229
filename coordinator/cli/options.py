"""Global options stand before or after the command: they are taken out of the arguments before typer sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UsageError
from coordinator.cli.context import GlobalOptions

_VALUES = {"--api": str, "--token": str, "--data": Path}
_FLAGS = ("--json", "--quiet", "--debug")

HELP = [
    ("--api URL", "the coordinator (STATEWARD_API)"),
    ("--token TOKEN", "with --api (better: STATEWARD_TOKEN)"),
    ("--data DIR", "data folder of an embedded coordinator (STATEWARD_DATA)"),
    ("--json", "one JSON document on stdout; logs go to stderr"),
    ("--quiet", "ids only"),
    ("--debug", "stack traces"),
]


def split_options(arguments: Sequence[str]) -> tuple[GlobalOptions, list[str]]:
    """The global options, and what remains. What follows `--` is left alone. Raises UsageError."""
    found: dict[str, Any] = {}
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            rest += [argument, *waiting]
            break
        name, equals, value = argument.partition("=")
        if name in _VALUES:
            if not equals:
                if not waiting:
                    raise UsageError(f"Option {name} needs a value.")
                value = waiting.pop(0)
            found[name.removeprefix("--")] = _VALUES[name](value)
        elif argument in _FLAGS:
            found[argument.removeprefix("--")] = True
        else:
            rest.append(argument)
    return GlobalOptions(**found), rest
