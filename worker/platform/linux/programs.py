# ruff: noqa: E402
"""Running the system's own programs: with a time limit, in the C locale, ended when the caller is."""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.platform.api import Cancelled as IsCancelled

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "LANGUAGE": "C", "HOME": "/nonexistent"}
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    output: str
    errors: str
    exit_code: int
    timed_out: bool = False


def find(program: str) -> str | None:
    return shutil.which(program, path=_ENVIRONMENT["PATH"])


def never() -> bool:
    return False


def run(command: Sequence[str], *, timeout_s: float, cancelled: IsCancelled = never) -> Ran:
    """Run a program to its end, its time limit or its cancellation; it never outlives this call.

    Raises:
        Cancelled: `cancelled` said so.
        OSError: it cannot be started.
    """
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT,
        cwd="/",
        text=True,
        errors="surrogateescape",
    ) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                stop = cancelled()
                if not stop and time.monotonic() < deadline:
                    continue
                process.kill()
                output, errors = process.communicate()
                if stop:
                    raise Cancelled(f"Cancelled while `{command[0]}` was running.") from None
                return Ran(output=output, errors=errors, exit_code=process.returncode, timed_out=True)
            return Ran(output=output, errors=errors, exit_code=process.returncode)
