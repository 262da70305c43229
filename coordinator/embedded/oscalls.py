"""The few calls of the operating system that the embedded servers need; Windows has a sentence in their place.

The embedded system runs on Linux: its two servers exist as wheels for Linux alone. This file keeps the rest of the
package free of the question.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from common.errors import ConfigInvalid

if TYPE_CHECKING:
    from pathlib import Path

LINUX_ONLY = "The embedded system (`up`, `quickstart`) runs on Linux alone."

if sys.platform == "win32":  # noqa: TID251 - mypy reads each branch as its platform only when the name stands here

    def lock_without_waiting(fd: int) -> bool:  # noqa: ARG001
        raise ConfigInvalid(LINUX_ONLY)

    def current_user() -> int:
        raise ConfigInvalid(LINUX_ONLY)

    def close_to_others(path: Path) -> None:  # noqa: ARG001
        raise ConfigInvalid(LINUX_ONLY)

    def end_group(pid: int, *, hard: bool) -> None:  # noqa: ARG001
        raise ConfigInvalid(LINUX_ONLY)

else:
    import fcntl
    import os
    import signal

    def lock_without_waiting(fd: int) -> bool:
        """Take the exclusive lock of an open file; False when another process holds it. It ends with its process."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def current_user() -> int:
        return os.geteuid()

    def close_to_others(path: Path) -> None:
        path.chmod(0o700)

    def end_group(pid: int, *, hard: bool) -> None:
        """Ask (or, `hard`, make) the process group led by `pid` to end. Nothing happens when it has ended already."""
        try:
            os.killpg(pid, signal.SIGKILL if hard else signal.SIGTERM)
        except ProcessLookupError:
            return
