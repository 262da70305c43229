# ruff: noqa: E402, PTH208
"""Reading files: names, descriptions, and contents without following links, waiting for FIFOs or leaving traces."""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import errno
import os
import stat
from typing import TYPE_CHECKING

from worker.platform.api import SourceUnreadable
from worker.platform.linux import describe as describing
from worker.platform.linux.mounts import PSEUDO_PATHS, PSEUDO_TYPES, read_mounts
from worker.platform.reasons import DENIED, VANISHED, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.vault.entry import Entry
    from worker.platform.api import SourceFile, Warn

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NOATIME = getattr(os, "O_NOATIME", 0)
_BLOCK = 512
_READAHEAD_FROM = 1 << 20
NO_LONGER_A_FILE = "is no longer the file that was listed"


class LinuxOpenFile:
    """See `worker.platform.api.OpenFile`."""

    def __init__(self, fd: int, status: os.stat_result, entry: Entry, real: bytes) -> None:
        self._fd = fd
        self._status = status
        self._real = real
        self.entry = entry

    def extents(self) -> Iterator[tuple[int, int]]:
        size = self._status.st_size
        if self._status.st_blocks * _BLOCK >= size:  # nothing can be missing: spare the questions
            if size:
                yield 0, size
            return
        position = 0
        while position < size:
            try:
                start = os.lseek(self._fd, position, os.SEEK_DATA)
                end = min(os.lseek(self._fd, start, os.SEEK_HOLE), size)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data after `position`
                    return
                start, end = position, size  # the file system knows no holes
            if start >= size:
                return
            yield start, end - start
            position = end

    def read_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        view = memoryview(buffer)
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise SourceUnreadable(self.entry.path, in_words(error)) from error
            if count == 0:
                break
            done += count
        return done

    def changed(self) -> bool:
        try:
            return any(_identity(now) != _identity(self._status) for now in (os.fstat(self._fd), os.lstat(self._real)))
        except OSError:
            return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class LinuxFiles:
    """See `worker.platform.api.SourceFiles`."""

    def __init__(self) -> None:
        self._pseudo_devices: frozenset[int] | None = None

    def names(self, real: bytes) -> list[bytes]:
        return os.listdir(real)

    def join(self, real: bytes, name: bytes) -> bytes:
        return real + name if real.endswith(b"/") else real + b"/" + name

    def describe(self, real: bytes, tree: bytes, warn: Warn) -> Entry:
        return describing.describe(real, tree, warn)

    def is_pseudo(self, real: bytes, device: int) -> bool:
        if self._pseudo_devices is None:
            self._pseudo_devices = frozenset(mount.device for mount in read_mounts() if mount.kind in PSEUDO_TYPES)
        return real in PSEUDO_PATHS or device in self._pseudo_devices

    def open(self, source: SourceFile) -> LinuxOpenFile:
        entry = source.entry
        try:
            fd = _open(source.real)
        except OSError as error:
            raise SourceUnreadable(entry.path, _why_not_opened(error)) from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != (entry.device, entry.inode):
                raise SourceUnreadable(entry.path, NO_LONGER_A_FILE)  # noqa: TRY301 - one place closes it
            if status.st_size >= _READAHEAD_FROM:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            now = describing.entry_of(status, entry.path, target=b"", xattrs=entry.xattrs)
        except OSError as error:
            os.close(fd)
            raise SourceUnreadable(entry.path, in_words(error)) from error
        except SourceUnreadable:
            os.close(fd)
            raise
        return LinuxOpenFile(fd, status, now, source.real)


def _open(real: bytes) -> int:
    try:
        return os.open(real, _FLAGS | _NOATIME)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(real, _FLAGS)  # only a file's owner may leave its access time alone


def _why_not_opened(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return NO_LONGER_A_FILE
    if error.errno == errno.ENOENT:
        return VANISHED
    return DENIED if error.errno == errno.EACCES else in_words(error)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
