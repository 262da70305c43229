"""Where a restore writes: one folder, one rule for names that are taken, and a report of what did not become as it was.

Nothing outside of the folder is ever written: paths are checked here, and the platform's `TargetTree` follows no link.
Files fail by path and reason and the restore goes on; only the folder itself can end it.
"""

from __future__ import annotations

import errno
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from common.errors import NoSpace, TargetNotEmpty, TargetNotWritable
from common.vault.entry import Entry, Kind
from worker.platform.reasons import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from worker.platform.api import Host, NewFile, TargetTree

_NAME_BYTES = 255
_COPIES = 1000
_KNOWN = frozenset(Kind)
_SPARE_BYTES = 1 << 20


class Conflict(StrEnum):
    """What to do when a name is taken."""

    REFUSE = "refuse"
    """Only into an empty folder."""
    COPY = "copy"
    """Restore beside it, as `name.restored-1`."""
    OVERWRITE = "overwrite"
    """Replace it, in one step for each file."""
    SKIP = "skip"
    """Leave what is there."""


@dataclass(slots=True, kw_only=True)
class TargetReport:
    """What happened so far. `failed` is (path in the tree, reason); `notes` counts what this user or file system did
    not permit, which is no failure; `copies` maps a path in the tree to the name it got instead."""

    files: int = 0
    """Restored files, links, nodes and hard links; no directories."""
    directories: int = 0
    skipped: int = 0
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    copies: dict[bytes, bytes] = field(default_factory=dict)


def why_unsafe(path: bytes) -> str | None:
    """Why a path from a tree must not be written, or None."""
    names = path.split(b"/")
    if path.startswith(b"/"):
        return "refused: the path is absolute"
    if b"\0" in path:
        return "refused: the path holds a NUL"
    if b"" in names:
        return "refused: the path has an empty component"
    if b"." in names or b".." in names:
        return "refused: the path has a '.' or '..' component"
    return None


class FileWriter:
    """A file that is being restored. Several threads may `write_at`; then one calls `commit` or `abort`, once."""

    def __init__(self, target: Target, entry: Entry, file: NewFile) -> None:
        self._target = target
        self._file = file
        self.entry = entry

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data`; what is never written stays a hole.

        Raises:
            NoSpace: the volume is full.
            OSError: anything else; call `abort`.
        """
        try:
            self._file.write_at(offset, data)
        except OSError as error:
            self._target.raise_if_full(error)
            raise

    def commit(self) -> bool:
        """Give it its metadata and its name. False when it failed or was skipped; the report says why."""
        return self._target.finish_file(self.entry, self._file)

    def abort(self, reason: str) -> None:
        """Remove what was written and report the path as failed."""
        self._target.abandon_file(self.entry, self._file, reason)


class Target:
    """Open it in a `with`. Entries come in tree order (directories before what they hold); files may be written and
    committed in any order and by several threads, hard links after their first name was committed. `finish` is last."""

    def __init__(self, host: Host, root: Path, *, conflict: Conflict, numeric_owner: bool = True) -> None:
        """Makes the folder when it is missing.

        Raises:
            TargetNotWritable: it cannot be made or opened.
        """
        self.root = root
        self.conflict = conflict
        self.report = TargetReport()
        self._lock = threading.Lock()
        self._made: list[bytes] = []
        self._absent: set[bytes] = set()
        try:
            self._tree: TargetTree = host.target(root, numeric_owner=numeric_owner)
        except FileNotFoundError as error:  # as in /proc: its file system makes no folders
            raise TargetNotWritable(f"The folder {root} cannot be made there.") from error
        except OSError as error:
            raise TargetNotWritable(f"The folder {root} cannot be written: {in_words(error)}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tree.close()

    def preflight(self, total_bytes: int) -> None:
        """Ask before the first byte.

        Raises:
            TargetNotEmpty · TargetNotWritable · NoSpace
        """
        try:
            if self.conflict is Conflict.REFUSE and not self._tree.is_empty():
                raise TargetNotEmpty(f"The folder {self.root} is not empty.")
            self._tree.new_file(b"", 0).discard()
            free = self._tree.free_bytes()
        except OSError as error:
            raise TargetNotWritable(f"The folder {self.root} cannot be written: {in_words(error)}.") from error
        if free < total_bytes + _SPARE_BYTES:
            raise NoSpace(f"The restore needs {total_bytes:,} bytes and the volume of {self.root} has {free:,} free.")

    def directory(self, entry: Entry) -> bool:
        """Make a directory; its metadata waits for `finish`. One that is there is used; only overwrite changes it."""
        with self._reported(entry) as ok:
            if not ok:
                return False
            if self.conflict is Conflict.OVERWRITE and not self._tree.is_directory(entry.path):
                self._clear_way(entry)
            made = self._tree.make_directory(entry.path)
            with self._lock:
                self.report.directories += 1
                if made or self.conflict is Conflict.OVERWRITE:
                    self._made.append(msgspec.msgpack.encode(entry))
            return True
        return False

    def file(self, entry: Entry) -> FileWriter | None:
        """Start a file; None when it is skipped or cannot be (the report says which)."""
        with self._reported(entry) as ok:
            if not ok or self._is_taken(entry):
                return None
            directory = entry.path.rpartition(b"/")[0]
            return FileWriter(self, entry, self._tree.new_file(directory, entry.size))
        return None

    def node(self, entry: Entry) -> bool:
        """A symbolic link, FIFO, socket or device node."""
        with self._reported(entry) as ok:
            if not ok or self._is_taken(entry):
                return False
            return self._named(entry, lambda path, replace: self._tree.new_node(path, entry, replace=replace))
        return False

    symlink = node

    def hard_link(self, entry: Entry, first: bytes) -> bool:
        """Another name of a file whose first name (in the tree) was committed. False, without a report: it cannot be
        linked here, so restore it as a file of its own."""
        if why_unsafe(entry.path) or first in self._absent:
            return False
        first = self.report.copies.get(first, first)

        def link(path: bytes, replace: bool) -> list[str]:  # noqa: FBT001 - like the others
            self._tree.hard_link(first, path, replace=replace)
            return []

        try:
            if self._is_taken(entry):
                return True
            self._named(entry, link)
        except OSError:
            return False
        return True

    def finish(self) -> TargetReport:
        """Give the directories their metadata, innermost first. Call it once, when every file is committed."""
        while self._made:
            entry = msgspec.msgpack.decode(self._made.pop(), type=Entry)
            with self._reported(entry):
                self._note(self._tree.apply_directory(entry.path, entry))
        return self.report

    def fail(self, path: bytes, reason: str) -> None:
        """Report a path that the caller could not restore."""
        with self._lock:
            self.report.failed.append((path, reason))
            self._absent.add(path)

    def finish_file(self, entry: Entry, file: NewFile) -> bool:
        def place(path: bytes, replace: bool) -> list[str]:  # noqa: FBT001 - like the others
            file.place(path.rpartition(b"/")[2], replace=replace)
            return []

        try:
            with self._reported(entry):
                self._note(file.apply(entry))
                return self._named(entry, place)
            return False
        finally:
            file.discard()

    def raise_if_full(self, error: OSError) -> None:
        """A full volume ends the restore: every other file would fail as well."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"The volume of {self.root} is full: {in_words(error)}.") from error

    def abandon_file(self, entry: Entry, file: NewFile, reason: str) -> None:
        file.discard()
        self.fail(entry.path, reason)

    def _is_taken(self, entry: Entry) -> bool:
        """Whether the name is taken in a way that ends this file before its first byte."""
        if self.conflict is Conflict.COPY or not self._tree.exists(entry.path):
            return False
        if self.conflict is Conflict.OVERWRITE:
            if self._tree.is_directory(entry.path):
                self.fail(entry.path, "a folder is in the way")
                return True
            return False
        if self.conflict is Conflict.SKIP:
            self._skip(entry)
        else:
            self.fail(entry.path, "something with this name is there already")
        return True

    def _named(self, entry: Entry, give: Callable[[bytes, bool], list[str]]) -> bool:
        """Give the file its name by the rule for conflicts; `give(path, replace)` raises FileExistsError. False: it was
        skipped."""
        path = entry.path
        for number in range(1, _COPIES + 1):
            try:
                notes = give(path, self.conflict is Conflict.OVERWRITE)
            except FileExistsError:
                if self.conflict is Conflict.SKIP:
                    self._skip(entry)
                    return False
                if self.conflict is not Conflict.COPY or number == _COPIES:
                    raise
                path = _beside(entry.path, number)
                continue
            with self._lock:
                self.report.files += 1
                self.report.notes.update(notes)
                if path != entry.path:
                    self.report.copies[entry.path] = path
            return True
        return False

    def _skip(self, entry: Entry) -> None:
        with self._lock:
            self.report.skipped += 1
            if entry.links > 1:
                self._absent.add(entry.path)

    def _clear_way(self, entry: Entry) -> None:
        if self._tree.exists(entry.path):
            self._tree.remove_file(entry.path)

    def _note(self, notes: list[str]) -> None:
        with self._lock:
            self.report.notes.update(notes)

    @contextmanager
    def _reported(self, entry: Entry) -> Iterator[bool]:
        """Yields whether the path may be written. What goes wrong in the block is reported, and the block is over."""
        reason = why_unsafe(entry.path)
        if reason is None and entry.kind not in _KNOWN:
            reason = f"not restored: this version does not know files of kind {entry.kind}"
        if reason is not None:
            self.fail(entry.path, reason)
        try:
            yield reason is None
        except OSError as error:
            self.raise_if_full(error)
            self.fail(entry.path, in_words(error))


def _beside(path: bytes, number: int) -> bytes:
    """The name for a copy, shortened where it would be too long."""
    directory, slash, name = path.rpartition(b"/")
    end = b".restored-%d" % number
    return directory + slash + name[: _NAME_BYTES - len(end)] + end
