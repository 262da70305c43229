# ruff: noqa: E402
"""The Linux host: a plain directory is its own snapshot, and a live read says that it is one."""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import os
import platform
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import SnapshotFailed
from worker.platform.api import HostFacts, Snapshot, SnapshotMode, SourceRoot
from worker.platform.linux.files import LinuxFiles
from worker.platform.linux.prechecks import prechecks
from worker.platform.linux.system_state import system_state
from worker.platform.linux.target import LinuxTargetTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from worker.platform.api import Cancelled, CheckResult, SystemState

LIVE_READ = "live read"
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2


class LinuxHost:
    """See `worker.platform.api.Host`."""

    def __init__(self) -> None:
        self.files = LinuxFiles()

    def facts(self) -> HostFacts:
        release = os_release()
        kernel = os.uname().release
        number = re.match(r"\d+(?:\.\d+)*", kernel)
        identity = release.get("ID", "linux")
        version = release.get("VERSION_ID", "")
        parts = [identity, version, number[0] if number else kernel]
        return HostFacts(
            hostname=platform.node(),
            os_name=release.get("NAME", "Linux"),
            os_version=version or release.get("BUILD_ID", "") or release.get("VERSION_CODENAME", ""),
            kernel=kernel,
            architecture=os.uname().machine,
            os_build="-".join(part for part in parts if part),
            elevated=may_read_everything(),
        )

    def free_bytes(self, folder: Path) -> int:
        existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        return shutil.disk_usage(existing).free

    def prechecks(
        self, *, verify_timeout_s: float, cancelled: Cancelled
    ) -> Iterator[tuple[str, Callable[[], CheckResult]]]:
        return prechecks(self.facts(), verify_timeout_s=verify_timeout_s, cancelled=cancelled)

    def source_root(self, path: Path) -> SourceRoot:
        whole = path.absolute()
        real = os.fsencode(whole.parent.resolve() / whole.name if whole.name not in ("", "..") else whole.resolve())
        return SourceRoot(real=real, tree=real.strip(b"/"))

    def system_state(self, scratch: Path) -> SystemState:
        return system_state(scratch)

    @contextmanager
    def volume_snapshot(self, roots: Iterable[SourceRoot], mode: SnapshotMode) -> Iterator[Snapshot]:
        if mode is SnapshotMode.REQUIRE:
            raise SnapshotFailed(
                "No snapshot can be made on Linux yet, and the policy requires one.",
                next_step="Let the policy prefer a snapshot instead; the recovery point then says live read.",
            )
        yield Snapshot(consistency=LIVE_READ, roots=tuple(roots))

    def target(self, root: Path, *, numeric_owner: bool) -> LinuxTargetTree:
        return LinuxTargetTree(root, numeric_owner=numeric_owner)


def os_release() -> dict[str, str]:
    """`/etc/os-release`, empty where there is none."""
    try:
        return dict(platform.freedesktop_os_release())
    except OSError:
        return {}


def may_read_everything(status: Path = Path("/proc/self/status")) -> bool:
    """Root, unless its capabilities were taken away; or a user to whom they were given."""
    try:
        match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    except OSError:
        match = None
    if match is None:
        return os.geteuid() == 0
    capabilities = int(match[1], 16)
    return bool(capabilities & (1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH))
