# ruff: noqa: E402
"""The Windows host: what works says so, what is missing fails closed with a sentence. See the design of the platform.

Missing: volume shadow copies, system state by Windows Server Backup, `sfc`, writers, security descriptors, streams.
"""

from __future__ import annotations

import sys

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import ctypes
import os
import platform
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from common.errors import PrecheckFailed, SnapshotFailed, TargetNotWritable
from worker.platform.api import CheckResult, HostFacts, Outcome, SourceFile, SourceRoot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from common.vault.entry import Entry
    from worker.platform.api import Cancelled, OpenFile, Snapshot, SnapshotMode, SystemState, TargetTree, Warn

_SERVER_FROM_BUILD = 14393
_WORKSTATION = 1


def _missing(what: str) -> NoReturn:
    raise SnapshotFailed(
        f"{what} is not built for Windows yet; nothing was read.",
        next_step="Run the worker on a Linux host, or wait for the release that names Windows as supported.",
    )


class WindowsFiles:
    """See `worker.platform.api.SourceFiles`."""

    def names(self, real: bytes) -> list[bytes]:
        return [os.fsencode(name) for name in os.listdir(os.fsdecode(real))]  # noqa: PTH208 - bytes in, bytes out

    def join(self, real: bytes, name: bytes) -> bytes:
        return real.rstrip(b"\\") + b"\\" + name

    def describe(self, real: bytes, tree: bytes, warn: Warn) -> Entry:
        del real, tree, warn
        _missing("Describing files (attributes, security descriptors, alternate streams)")

    def is_pseudo(self, real: bytes, device: int) -> bool:
        del real, device
        return False

    def open(self, source: SourceFile) -> OpenFile:
        del source
        _missing("Reading files from a shadow copy")


class WindowsHost:
    """See `worker.platform.api.Host`."""

    def __init__(self) -> None:
        self.files = WindowsFiles()

    def facts(self) -> HostFacts:
        version = sys.getwindowsversion()
        build = f"{version.major}.{version.minor}.{version.build}"
        return HostFacts(
            hostname=platform.node(),
            os_name="Windows Server" if version.product_type != _WORKSTATION else "Windows",
            os_version=platform.win32_ver()[0],
            kernel=build,
            architecture=platform.machine(),
            os_build=f"windows-{build}",
            elevated=bool(ctypes.windll.shell32.IsUserAnAdmin()),
        )

    def free_bytes(self, folder: Path) -> int:
        existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        return shutil.disk_usage(existing).free

    def prechecks(
        self, *, verify_timeout_s: float, cancelled: Cancelled
    ) -> Iterator[tuple[str, Callable[[], CheckResult]]]:
        del verify_timeout_s, cancelled
        yield "supported_os", self._supported_os
        yield "rights", self._rights
        yield "windows_support", self._windows_support

    def source_root(self, path: Path) -> SourceRoot:
        whole = path.absolute()
        return SourceRoot(real=os.fsencode(whole), tree=os.fsencode(whole.as_posix().replace(":", "", 1).strip("/")))

    def system_state(self, scratch: Path) -> SystemState:
        del scratch
        _missing("The system state (by Windows Server Backup)")

    @contextmanager
    def volume_snapshot(self, roots: Iterable[SourceRoot], mode: SnapshotMode) -> Iterator[Snapshot]:
        del roots, mode
        _missing("A volume shadow copy")
        yield

    def target(self, root: Path, *, numeric_owner: bool) -> TargetTree:
        del numeric_owner
        raise TargetNotWritable(f"Restoring to {root} is not built for Windows yet; files can be restored on Linux.")

    def _supported_os(self) -> CheckResult:
        version = sys.getwindowsversion()
        if version.product_type == _WORKSTATION:
            return self._failed("supported_os", "Client editions of Windows have no system state backup.")
        if version.build < _SERVER_FROM_BUILD:
            return self._failed("supported_os", f"Build {version.build} is older than Windows Server 2016.")
        return CheckResult(name="supported_os", outcome=Outcome.PASS, reason=f"Windows Server, build {version.build}.")

    def _rights(self) -> CheckResult:
        if self.facts().elevated:
            return CheckResult(
                name="rights", outcome=Outcome.PASS, reason="This process is an elevated administrator's."
            )
        return self._failed("rights", "The worker must run as LocalSystem or as an elevated administrator.")

    def _windows_support(self) -> CheckResult:
        return self._failed("windows_support", "Snapshots and system state are not built for Windows yet.")

    @staticmethod
    def _failed(name: str, reason: str) -> CheckResult:
        return CheckResult(name=name, outcome=Outcome.FAIL, reason=reason, next_step=PrecheckFailed.default_next_step)
