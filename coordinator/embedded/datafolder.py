"""The data folder of an embedded system: private to its owner, used by one run at a time.

::

    <data>/           0700
    ├─ lock           flock'ed by the run that uses the folder; holds its pid
    ├─ coordinator/   database, signing keys        ├─ store/    SeaweedFS: volumes, filer, its two configuration files
    ├─ worker/        the agent of this machine     ├─ valkey/   configuration, users
    ├─ logs/          one file a process            └─ run/      ports, marks: worthless when nothing runs

The lock is the kernel's: it ends with the process that holds it, however that ends, so no stale lock file is possible.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from common.errors import Busy, ConfigInvalid, NoSpace
from common.privatefiles import write_private
from coordinator.embedded import oscalls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

MIN_FREE_BYTES: Final = 1 << 30
_OTHERS = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLayout:
    """Where everything of an embedded system lies."""

    root: Path

    @property
    def coordinator(self) -> Path:
        return self.root / "coordinator"

    @property
    def worker(self) -> Path:
        return self.root / "worker"

    @property
    def valkey(self) -> Path:
        return self.root / "valkey"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def subfolders(self) -> tuple[Path, ...]:
        return (self.coordinator, self.worker, self.valkey, self.store, self.logs, self.run)


class DataFolder:
    """A locked data folder. Use as a context; leaving it frees the lock.

    Raises:
        ConfigInvalid: the folder is not ours, is no folder, or cannot be made private.
        Busy: another run holds it.
        NoSpace: less than 1 GiB is free there.
    """

    def __init__(self, root: Path, *, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self.layout = DataLayout(root=root.absolute())
        _make_private(self.layout.root)
        self._fd = _locked(self.layout)
        try:
            require_space(self.layout.root, min_free_bytes)
            for folder in self.layout.subfolders:
                _make_private(folder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_space(folder: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        raise NoSpace(
            f"The volume of {folder} has {free >> 20} MiB free; the embedded system needs {min_free_bytes >> 20} MiB."
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file that we wrote; empty when there is none.

    Raises:
        ConfigInvalid: the file is not what we wrote.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigInvalid(f"{path} is not the JSON that was written there: {error}.") from error
    if not isinstance(found, dict):
        raise ConfigInvalid(f"{path} holds no JSON object.")
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_private(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise ConfigInvalid(f"The data folder {folder} cannot be made: {error.strerror}.") from error
    if found.st_uid != oscalls.current_user():
        raise ConfigInvalid(
            f"The data folder {folder} belongs to another user (uid {found.st_uid}).",
            next_step="Name a folder of your own with --data.",
        )
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        try:
            oscalls.close_to_others(folder)
        except OSError as error:
            raise ConfigInvalid(f"The data folder {folder} is open to other users: {error.strerror}.") from error
        if stat.S_IMODE(folder.stat().st_mode) & _OTHERS:  # some mounts know no modes and say nothing
            raise ConfigInvalid(
                f"The data folder {folder} is open to other users and its file system keeps it so.",
                next_step="Name a folder on a file system with permissions with --data.",
            )


def _locked(layout: DataLayout) -> int:
    try:
        fd = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigInvalid(f"The data folder {layout.root} is not writable: {error.strerror}.") from error
    if not oscalls.lock_without_waiting(fd):
        holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise Busy(
            f"The data folder {layout.root} is in use by another run (process {holder}).",
            next_step=f"End process {holder}, or name another folder with --data.",
        )
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd
