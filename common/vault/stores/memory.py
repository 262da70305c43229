"""A store in memory, with versions and delete markers as S3 has them: for tests and as the model of the contract."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from common.errors import AlreadyExists
from common.vault.store import Buffer, ObjectInfo, ObjectMissing, ObjectVersion, check_key


@dataclass(frozen=True, slots=True)
class _Version:
    id: str
    data: bytes | None
    """None is a delete marker."""
    modified: datetime


@dataclass(slots=True)
class MemoryStore:
    """`clock` gives the store's time of receipt."""

    clock: Callable[[], datetime]
    _objects: dict[str, list[_Version]] = field(default_factory=dict)
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        check_key(key)
        body = bytes(data)
        if sha256 is not None and hashlib.sha256(body).digest() != sha256:
            raise ValueError("sha256 is not that of the data")
        with self._lock:
            versions = self._objects.get(key, [])
            if versions and versions[-1].data is not None:
                raise AlreadyExists(f"The store already holds {key}.")
            self._append(key, body)

    def get(self, key: str, *, offset: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        data = self._find(key, version).data
        if data is None:
            raise ObjectMissing(f"The store does not hold {key}.")
        return data[offset:] if length is None else data[offset : offset + length]

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo:
        found = self._find(key, version)
        if found.data is None:
            raise ObjectMissing(f"The store does not hold {key}.")
        digest = hashlib.sha256(found.data).digest()
        return ObjectInfo(key=key, size=len(found.data), modified=found.modified, version=found.id, sha256=digest)

    def list(self, prefix: str, *, hidden: bool = False) -> Iterator[ObjectInfo]:
        with self._lock:
            found = sorted((key, list(reversed(each))) for key, each in self._objects.items() if key.startswith(prefix))
        for key, versions in found:
            version = next((each for each in versions if each.data is not None or not hidden), None)
            if version is not None and version.data is not None:
                yield ObjectInfo(key=key, size=len(version.data), modified=version.modified, version=version.id)

    def versions(self, key: str) -> Sequence[ObjectVersion]:
        with self._lock:
            versions = list(self._objects.get(key, []))
        return [
            ObjectVersion(
                key=key,
                version=version.id,
                size=len(version.data or b""),
                modified=version.modified,
                latest=number == len(versions) - 1,
                delete_marker=version.data is None,
            )
            for number, version in reversed(list(enumerate(versions)))
        ]

    def delete(self, key: str, *, version: str) -> None:
        with self._lock:
            left = [each for each in self._objects.get(key, []) if each.id != version]
            if left:
                self._objects[key] = left
            else:
                self._objects.pop(key, None)

    def overwrite(self, key: str, data: bytes | None) -> None:
        """What somebody with PUT or DELETE rights may do to a bucket with versions: a new version, or a delete marker."""
        with self._lock:
            self._append(key, data)

    def _append(self, key: str, data: bytes | None) -> None:
        self._count += 1
        self._objects.setdefault(key, []).append(_Version(f"v{self._count}", data, self.clock()))

    def _find(self, key: str, version: str | None) -> _Version:
        check_key(key)
        with self._lock:
            versions = self._objects.get(key, [])
            for each in reversed(versions):
                if version is None or each.id == version:
                    return each
        raise ObjectMissing(f"The store does not hold {key}.")
