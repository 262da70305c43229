# ruff: noqa: E402
"""A folder that files are restored into, and nothing outside of it.

T1  Every directory on the way is opened by its name in the one above, never through a link. Whoever plants a link,
    before or while we write, gets a refusal.
T2  A file appears under its name whole or not at all: it is written under a temporary name in the same directory.
T3  What is not to be replaced is not replaced, also if it appears while we write: names are given by `link`, which
    refuses an existing name in the same step.
"""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import errno
import os
import secrets
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from common.vault.entry import Entry, Kind
from worker.platform.linux.metadata import Place, apply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY_PREFIX = b".stateward-restoring-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SEARCH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
_FORMATS = {
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHAR_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
}


class LinuxNewFile:
    """See `worker.platform.api.NewFile`. Owns both descriptors."""

    def __init__(self, directory_fd: int, name: bytes, fd: int, *, numeric_owner: bool) -> None:
        self._directory_fd = directory_fd
        self._name = name
        self._fd = fd
        self._numeric_owner = numeric_owner

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, offset)
            view = view[count:]
            offset += count

    def apply(self, entry: Entry) -> list[str]:
        return apply(Place(fd=self._fd), entry, numeric_owner=self._numeric_owner)

    def place(self, name: bytes, *, replace: bool) -> None:
        _place(self._directory_fd, self._name, name, replace=replace)
        self._close()

    def discard(self) -> None:
        if self._fd < 0:
            return
        try:
            os.unlink(self._name, dir_fd=self._directory_fd)
        except FileNotFoundError:
            pass
        finally:
            self._close()

    def _close(self) -> None:
        fds, self._fd, self._directory_fd = (self._fd, self._directory_fd), -1, -1
        for fd in fds:
            os.close(fd)


class LinuxTargetTree:
    """See `worker.platform.api.TargetTree`. Keeps the directories of the last path open: neighbours come together."""

    def __init__(self, root: Path, *, numeric_owner: bool) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._numeric_owner = numeric_owner
        self._lock = threading.Lock()
        self._open: list[tuple[bytes, int]] = []

    def is_empty(self) -> bool:
        with os.scandir(self._root_fd) as entries:
            return next(entries, None) is None

    def free_bytes(self) -> int:
        status = os.fstatvfs(self._root_fd)
        return status.f_bavail * status.f_frsize

    def exists(self, path: bytes) -> bool:
        return self._mode(path) is not None

    def is_directory(self, path: bytes) -> bool:
        mode = self._mode(path)
        return mode is not None and stat.S_ISDIR(mode)

    def make_directory(self, path: bytes) -> bool:
        with self._parent(path) as (parent, name):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    return False
                raise
            return True

    def apply_directory(self, path: bytes, entry: Entry) -> list[str]:
        with self._parent(path) as (parent, name):
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                return apply(Place(fd=fd), entry, numeric_owner=self._numeric_owner)
            finally:
                os.close(fd)

    def remove_file(self, path: bytes) -> None:
        with self._parent(path) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def new_file(self, directory: bytes, size: int) -> LinuxNewFile:
        with self._directory(directory) as parent:
            name = _temporary()
            fd = os.open(name, _NEW, 0o600, dir_fd=parent)
            try:
                if size:
                    os.ftruncate(fd, size)
                kept = os.dup(parent)
            except OSError:
                os.close(fd)
                os.unlink(name, dir_fd=parent)
                raise
        return LinuxNewFile(kept, name, fd, numeric_owner=self._numeric_owner)

    def new_node(self, path: bytes, entry: Entry, *, replace: bool) -> list[str]:
        with self._parent(path) as (parent, name):
            temporary = _temporary()
            if entry.kind == Kind.SYMLINK:
                os.symlink(entry.target, temporary, dir_fd=parent)
            else:
                device = os.makedev(*entry.node) if entry.kind in (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE) else 0
                os.mknod(temporary, _FORMATS[Kind(entry.kind)] | 0o600, device, dir_fd=parent)
            with _removed_on_failure(parent, temporary):
                place = Place(directory_fd=parent, name=temporary)
                notes = apply(place, entry, numeric_owner=self._numeric_owner)
                _place(parent, temporary, name, replace=replace)
            return notes

    def hard_link(self, first: bytes, path: bytes, *, replace: bool) -> None:
        with self._parent(first) as (first_parent, first_name):
            kept = os.dup(first_parent)
        try:
            with self._parent(path) as (parent, name):
                temporary = _temporary() if replace else name
                os.link(first_name, temporary, src_dir_fd=kept, dst_dir_fd=parent, follow_symlinks=False)
                if replace:
                    with _removed_on_failure(parent, temporary):
                        _place(parent, temporary, name, replace=True)
        finally:
            os.close(kept)

    def close(self) -> None:
        with self._lock:
            self._close_from(0)
            if self._root_fd >= 0:
                os.close(self._root_fd)
                self._root_fd = -1

    def _mode(self, path: bytes) -> int | None:
        try:
            with self._parent(path, make=False) as (parent, name):
                return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return None

    @contextmanager
    def _parent(self, path: bytes, *, make: bool = True) -> Iterator[tuple[int, bytes]]:
        directory, _, name = path.rpartition(b"/")
        with self._directory(directory, make=make) as parent:
            yield parent, name

    @contextmanager
    def _directory(self, path: bytes, *, make: bool = True) -> Iterator[int]:
        """A descriptor of a directory below the root, good until the block ends (T1)."""
        names = path.split(b"/") if path else []
        with self._lock:
            common = 0
            while common < min(len(names), len(self._open)) and self._open[common][0] == names[common]:
                common += 1
            self._close_from(common)
            fd = self._open[-1][1] if self._open else self._root_fd
            for name in names[common:]:
                fd = _enter(fd, name, make=make)
                self._open.append((name, fd))
            yield fd

    def _close_from(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])


def _enter(parent: int, name: bytes, *, make: bool) -> int:
    try:
        return os.open(name, _SEARCH, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # made by somebody else just now: opened like any other
        os.mkdir(name, dir_fd=parent)
    return os.open(name, _SEARCH, dir_fd=parent)


def _place(parent: int, temporary: bytes, name: bytes, *, replace: bool) -> None:
    if replace:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        _forget(parent, temporary)  # renaming one name of a file to another name of it does nothing
        return
    try:
        os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_to_free_name(parent, temporary, name)
        return
    _forget(parent, temporary)


def _rename_to_free_name(parent: int, temporary: bytes, name: bytes) -> None:
    """For file systems without hard links; between question and answer somebody else may take the name."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


@contextmanager
def _removed_on_failure(parent: int, name: bytes) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _forget(parent, name)
        raise


def _forget(parent: int, name: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)


def _temporary() -> bytes:
    return TEMPORARY_PREFIX + secrets.token_hex(8).encode()
