"""What the worker asks of an operating system. Everything that can be said without it stands outside of this package.

`Host` is the machine; `SourceFiles` reads its files; `TargetTree` writes into one folder and nowhere else. Paths on the
machine are `real` (bytes on Linux as the kernel has them, UTF-8 with surrogates passed through on Windows); paths in a
recovery point are `tree` paths (see `common.vault.entry`). No method here logs, retries or sleeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from common.vault.entry import Entry

Warn = Callable[[bytes, str], None]
"""Called with a tree path and a reason in words; the work goes on."""

Cancelled = Callable[[], bool]


class Outcome(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The verdict of one precheck. A `FAIL` means that a backup must not start."""

    name: str
    outcome: Outcome
    reason: str
    """One sentence; on a pass, too."""
    next_step: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """Who this machine is. Nothing in it changes while the machine runs."""

    hostname: str
    os_name: str
    os_version: str
    kernel: str
    architecture: str
    os_build: str
    """Equal on machines whose system files are nearly the same, such as `debian-12-6.1.0`."""
    elevated: bool
    """Whether this process may read every file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRoot:
    """A file or folder to be backed up and where it appears in the tree (empty: the folder's content is the tree)."""

    real: bytes
    tree: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemState:
    """What belongs to a machine's system state: only roots that exist."""

    roots: tuple[SourceRoot, ...]
    warnings: tuple[tuple[str, str], ...] = ()
    """Facts that should be there and could not be collected: (name, reason)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file as it was found: its entry without `digest`, `ranges` and `range_blocks`, and where to read it."""

    entry: Entry
    real: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A state of the volumes that holds still, or says that it does not."""

    consistency: str
    """What a recovery point's head says: `live read` when nothing holds still."""
    roots: tuple[SourceRoot, ...]
    """The roots asked for, with `real` leading into the snapshot."""


class SnapshotMode(StrEnum):
    REQUIRE = "require"
    PREFER = "prefer"
    NEVER = "never"


class SourceUnreadable(Exception):
    """A file that cannot be read (whole). A warning of the backup by path and reason, never its end."""

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(f"{path!r}: {reason}")
        self.path = path
        self.reason = reason


class OpenFile(Protocol):
    """A regular file opened for reading. Not for several threads at once, except `read_into`.
    Closing twice is allowed."""

    @property
    def entry(self) -> Entry:
        """The entry as of opening: sizes and times are those of the content that is about to be read."""

    def extents(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of data in order; what lies between and behind, up to `entry.size`, is a hole (zeros)."""

    def read_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        """Fill the buffer from `offset`; fewer bytes than asked for mean the end of the file. Threads may call it.

        Raises:
            SourceUnreadable: with the reason in words.
        """

    def changed(self) -> bool:
        """Whether the file has changed (size, times, identity, name) since it was opened."""

    def close(self) -> None: ...


class SourceFiles(Protocol):
    """Reading of files. Never follows a link in the last component, never blocks on a FIFO, never changes access times
    where the system allows that."""

    def names(self, real: bytes) -> list[bytes]:
        """Names in a directory in any order. Raises OSError."""

    def join(self, real: bytes, name: bytes) -> bytes: ...

    def describe(self, real: bytes, tree: bytes, warn: Warn) -> Entry:
        """What is there now. Metadata that cannot be read is a warning. Raises OSError when there is nothing to say."""

    def is_pseudo(self, real: bytes, device: int) -> bool:
        """Whether a directory shows the kernel rather than a disk (`/proc`, `/sys`, `/dev`, `/run`)."""

    def open(self, source: SourceFile) -> OpenFile:
        """Open what `describe` found.

        Raises:
            SourceUnreadable: it is no longer that regular file, or may not be read.
        """


class NewFile(Protocol):
    """A regular file under a temporary name; ends with `place` or `discard`. Several threads may call `write_at`."""

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of it. What is never written stays a hole. Raises OSError."""

    def apply(self, entry: Entry) -> list[str]:
        """Give it the metadata of `entry`; returns what this user or file system does not permit."""

    def place(self, name: bytes, *, replace: bool) -> None:
        """Give it its name, in one step. Raises FileExistsError (not `replace`), IsADirectoryError, OSError."""

    def discard(self) -> None:
        """Remove it; nothing happens after `place`."""


class TargetTree(Protocol):
    """One folder that files are restored into.

    Paths are relative, without empty, `.` or `..` components (the caller has checked that). No link in any component is
    ever followed, whoever put it there: such a path raises NotADirectoryError. Missing parents are made. All methods
    may be called by several threads and raise OSError.
    """

    def is_empty(self) -> bool: ...

    def free_bytes(self) -> int: ...

    def exists(self, path: bytes) -> bool:
        """Whether anything has this name, a dangling link too. A missing parent: False."""

    def is_directory(self, path: bytes) -> bool: ...

    def make_directory(self, path: bytes) -> bool:
        """True when it was made (for this user alone until `apply_directory`), False when it was a directory already.
        FileExistsError when something else has the name."""

    def apply_directory(self, path: bytes, entry: Entry) -> list[str]: ...

    def remove_file(self, path: bytes) -> None:
        """Remove anything but a directory."""

    def new_file(self, directory: bytes, size: int) -> NewFile:
        """An empty file of `size` bytes, all hole, under a temporary name in `directory`."""

    def new_node(self, path: bytes, entry: Entry, *, replace: bool) -> list[str]:
        """A symbolic link, FIFO, socket or device node with its metadata, in one step. Returns like `NewFile.apply`."""

    def hard_link(self, first: bytes, path: bytes, *, replace: bool) -> None:
        """Another name for a file restored before."""

    def close(self) -> None: ...


class Host(Protocol):
    """The machine the worker runs on."""

    @property
    def files(self) -> SourceFiles: ...

    def facts(self) -> HostFacts: ...

    def free_bytes(self, folder: Path) -> int:
        """Bytes this user may still write on the volume of `folder` (or of its nearest existing parent)."""

    def prechecks(
        self, *, verify_timeout_s: float, cancelled: Cancelled
    ) -> Iterator[tuple[str, Callable[[], CheckResult]]]:
        """The machine's own prechecks in order, cheap ones first: (name, run). A time limit of 0 leaves the
        verification of installed packages out."""

    def source_root(self, path: Path) -> SourceRoot:
        """Where a path that a person named is read and appears: its parents resolved, itself not followed."""

    def system_state(self, scratch: Path) -> SystemState:
        """Collect facts into `scratch` (which the caller keeps between runs) and name the roots of the system state."""

    def volume_snapshot(self, roots: Iterable[SourceRoot], mode: SnapshotMode) -> AbstractContextManager[Snapshot]:
        """A snapshot, deleted on every way out.

        Raises:
            SnapshotFailed: none could be made and `mode` requires one.
        """

    def target(self, root: Path, *, numeric_owner: bool) -> TargetTree:
        """Open a folder to restore into (made with its parents when missing). Raises OSError."""
