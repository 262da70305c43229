"""A vault in a directory (a NAS share, a removable disk): one file an object, no versions, no lock.

`put` writes a temporary file, makes it durable, and links it under its name: `link` refuses an existing name, so an
object appears whole or not at all, and never twice (V1). The folder is made durable too before `put` returns.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from common.errors import AlreadyExists, BucketMissing, NoSpace, StoreDenied, StoreUnavailable
from common.vault.store import Buffer, ObjectInfo, ObjectMissing, ObjectVersion, check_key
from common.vault.stores.pacing import SLICE, Pacer

_TEMPORARY = ".incoming"
_ONLY_VERSION = "only"


class DirectoryStore:
    """`root` must exist unless `create`; temporary files lie in `root/.incoming`."""

    def __init__(self, root: Path, *, create: bool = False, pacer: Pacer | None = None) -> None:
        self._root = root
        self._pacer = pacer
        self._folders: set[Path] = set()
        try:
            if create:
                root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not root.is_dir():
                raise BucketMissing(f"The vault's folder {root} does not exist.")
        except OSError as error:
            _translate(error, str(root))

    def put(self, key: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        del sha256  # a file system keeps no checksum: readers of a directory vault read
        target = self._path(key)
        temporary = self._root / _TEMPORARY / secrets.token_hex(16)
        try:
            self._make_folder(temporary.parent)
            self._make_folder(target.parent)
            try:
                _write_durably(temporary, data, self._pacer)
                os.link(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
        except OSError as error:
            _translate(error, key)

    def get(self, key: str, *, offset: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        self._check_version(key, version)
        try:
            with self._path(key).open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                wanted = max(0, min(size - offset, size if length is None else length))
                return _read_exactly(file.fileno(), offset, wanted)
        except OSError as error:
            _translate(error, key)

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo:
        self._check_version(key, version)
        path = self._path(key)
        try:
            stat = path.stat()
            if not path.is_file():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError as error:
            _translate(error, key)
        return ObjectInfo(
            key=key, size=stat.st_size, modified=datetime.fromtimestamp(stat.st_mtime, UTC), version=_ONLY_VERSION
        )

    def list(self, prefix: str, *, hidden: bool = False) -> Iterator[ObjectInfo]:
        del hidden  # nothing is ever hidden in a directory
        folder = self._root / prefix.rpartition("/")[0]
        try:
            yield from self._walk(folder, prefix)
        except OSError as error:
            _translate(error, prefix)

    def versions(self, key: str) -> Sequence[ObjectVersion]:
        try:
            info = self.head(key)
        except ObjectMissing:
            return []
        return [ObjectVersion(key=key, version=_ONLY_VERSION, size=info.size, modified=info.modified, latest=True)]

    def delete(self, key: str, *, version: str) -> None:
        if version != _ONLY_VERSION:
            return
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            _translate(error, key)

    def _walk(self, folder: Path, prefix: str) -> Iterator[ObjectInfo]:
        if not folder.is_dir():
            return
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name + ("/" if entry.is_dir() else ""))
        for entry in entries:
            key = Path(entry.path).relative_to(self._root).as_posix()
            if key == _TEMPORARY:
                continue
            if entry.is_dir(follow_symlinks=False):
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    yield from self._walk(Path(entry.path), prefix)
            elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
                stat = entry.stat(follow_symlinks=False)
                yield ObjectInfo(
                    key=key,
                    size=stat.st_size,
                    modified=datetime.fromtimestamp(stat.st_mtime, UTC),
                    version=_ONLY_VERSION,
                )

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _check_version(self, key: str, version: str | None) -> None:
        if version not in {None, _ONLY_VERSION}:
            raise ObjectMissing(f"The store does not hold version {version} of {key}.")

    def _make_folder(self, folder: Path) -> None:
        """Make it and those above it, each durable before anything is put into it."""
        if folder in self._folders or folder == self._root:
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        _sync_folder(folder.parent)
        self._folders.add(folder)


def _write_durably(path: Path, data: Buffer, pacer: Pacer | None) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        view = memoryview(data)
        while view:
            part = view if pacer is None else view[:SLICE]
            if pacer is not None:
                pacer.pass_on(len(part))
            view = view[os.write(handle, part) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_exactly(handle: int, offset: int, length: int) -> bytes:
    os.lseek(handle, offset, os.SEEK_SET)
    parts = []
    while length > 0:
        part = os.read(handle, length)
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _sync_folder(folder: Path) -> None:
    flags = getattr(os, "O_DIRECTORY", None)
    if flags is None:  # Windows has no handle for a folder to sync; NTFS journals the name itself
        return
    handle = os.open(folder, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _translate(error: OSError, key: str) -> NoReturn:
    if isinstance(error, FileExistsError):
        raise AlreadyExists(f"The store already holds {key}.") from error
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        raise ObjectMissing(f"The store does not hold {key}.") from error
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        raise StoreDenied(f"The vault's folder denies access to {key}.") from error
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        raise NoSpace(f"The vault's folder has no space left for {key}.") from error
    raise StoreUnavailable(f"The vault's folder failed at {key}: {error.strerror}.") from error
