"""The operating system: `this_host()` is the only place that asks which one it is. Everything else takes a `Host`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.platform.api import Host

if sys.platform == "win32":
    from worker.platform.windows.host import WindowsHost as _ThisHost

    def prepare_process() -> None:
        """Nothing is needed here."""

else:
    from worker.platform.linux.host import LinuxHost as _ThisHost
    from worker.platform.linux.memory import prepare_process

__all__ = ["prepare_process", "this_host"]


def this_host() -> Host:
    """The machine this process runs on."""
    return _ThisHost()
