"""The store port: everything the vault asks of S3, a directory, or memory.

Contract, kept by every implementation and checked by `tests/contract/test_store.py`:

- Keys are relative to the vault's root: `[A-Za-z0-9._/-]`, no empty, `.` or `..` component, at most 512 characters.
- `put` is atomic and creates only (V1): under a key that exists it raises `AlreadyExists` and changes nothing. A caller
  who got no answer may call again, and takes `AlreadyExists` for success only for a key of its own with equal content.
- `get` gives the newest version, or the one named; a delete marker as newest version is `ObjectMissing`.
- Buffers stay the caller's: they are not kept after the call returned.
- All calls may be made from several threads at once, and repeated.
- Errors are ours: `ObjectMissing`, `AlreadyExists`, `StoreDenied`, `BucketMissing`, `StoreUnavailable` (alone worth a
  retry), `TlsExpected`, `NoSpace`. No vendor's type crosses this port.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from common.errors import Damaged
from common.secret import Secret

Buffer: TypeAlias = bytes | bytearray | memoryview

_KEY = re.compile(r"(?:[A-Za-z0-9._-]+/)*[A-Za-z0-9._-]+")
_MAX_KEY = 512


class ObjectMissing(Damaged):
    """No object (or no such version) under this key."""

    code = "object_missing"
    number = 91


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    key: str
    size: int
    """Bytes."""
    modified: datetime
    """The store's time of receipt: the only clock retention trusts."""
    version: str | None = None
    sha256: bytes | None = None
    """As the store computed it at upload; None where the store shows none (then the object is unproven: read it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    key: str
    version: str
    size: int
    modified: datetime
    latest: bool
    delete_marker: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCredentials:
    access_key: str
    secret_key: Secret[str]
    session_token: Secret[str] | None = None


class Store(Protocol):
    """One vault's objects."""

    def put(self, key: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        """Store `data` (any size up to 64 MiB) under a new key. `sha256` saves computing it again."""
        ...

    def get(self, key: str, *, offset: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        """`length` bytes from `offset`, fewer when the object ends before; whole by default."""
        ...

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo: ...

    def list(self, prefix: str, *, hidden: bool = False) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in byte order of the keys; lazily, page by page. No checksums.

        With `hidden` also those behind a delete marker, as far as the store keeps them and shows them to this caller:
        the newest version that is no marker.
        """
        ...

    def versions(self, key: str) -> Sequence[ObjectVersion]:
        """All versions and delete markers of exactly this key, newest first; a store without versions gives one."""
        ...

    def delete(self, key: str, *, version: str) -> None:
        """Delete this one version for good. A version that is not there is no error."""
        ...


def check_key(key: str) -> str:
    """The key itself, or ValueError when it is not of the port's form."""
    if len(key) > _MAX_KEY or not _KEY.fullmatch(key) or any(part in {".", ".."} for part in key.split("/")):
        raise ValueError(f"not an object key: {key!r}")
    return key
