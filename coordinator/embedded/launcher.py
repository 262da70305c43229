"""Becomes another program that dies with its parent. A program of the standard library alone.

    python -I -S launcher.py PARENT_PID PROGRAM ARGUMENTS…

It asks the kernel to kill it when the *thread* that started it ends (PR_SET_PDEATHSIG, kept over exec), and then
becomes PROGRAM. Done here and not between fork and exec of the parent, where no Python code may run beside other
threads. Where the kernel knows no such thing, the guardian does it alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def main(parent: int, argv: list[str]) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)
    os.umask(0o077)
    os.execv(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
