"""Reading what others may have touched.

No store refuses an overwrite by somebody who may PUT, and a delete marker hides an object; with versioning the first
version stays. So a reader that gets bytes that do not match, or nothing, asks for the older versions and takes the one
that matches; only when none does is the object missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from common.errors import Damaged, FormatTooNew, NotTrusted, StatewardError, StoreDenied, WrongPassphrase
from common.vault.store import ObjectMissing, Store

T = TypeVar("T")

_REFUSALS = (Damaged, NotTrusted, FormatTooNew, WrongPassphrase)
"""What an `accept` says of bytes that may be somebody else's: other versions are asked for."""

LARGEST_OBJECT = 64 * 1024 * 1024
"""No object of a vault is larger, and no more is read of one: a hostile store cannot fill memory."""

_PART = 2 * 1024 * 1024


def read_matching(
    store: Store, key: str, accept: Callable[[bytes], T], *, offset: int = 0, length: int | None = None
) -> T:
    """What `accept` makes of the first version that it does not refuse (by Damaged, NotTrusted, FormatTooNew or
    WrongPassphrase); newest is tried first, then from the oldest on.

    Raises:
        Damaged: no version is accepted (the first refusal is the cause), or the object is missing.
        NotTrusted, FormatTooNew, WrongPassphrase: as `accept` raised it, when no version is accepted.
    """
    wanted = LARGEST_OBJECT if length is None else length
    try:
        return accept(store.get(key, offset=offset, length=wanted))
    except _REFUSALS as error:
        first = error
    for version in _older(store, key):
        try:
            return accept(store.get(key, offset=offset, length=wanted, version=version))
        except _REFUSALS:
            continue
    raise first


def read_oldest(store: Store, key: str, accept: Callable[[bytes], T]) -> T:
    """As `read_matching`, but the oldest accepted version counts: for points, of which a thief of the host could sign a
    second one under the same key."""
    versions = _older(store, key)
    if len(versions) <= 1:
        return read_matching(store, key, accept)
    refused: StatewardError | None = None
    for version in versions:
        try:
            return accept(store.get(key, length=LARGEST_OBJECT, version=version))
        except _REFUSALS as error:
            refused = refused or error
    raise refused or ObjectMissing(f"The store does not hold {key}.")


def expect_sha256(key: str, sha256: bytes) -> Callable[[bytes], bytes]:
    """An `accept` that wants exactly these bytes."""

    def accept(data: bytes) -> bytes:
        if hashlib.sha256(data).digest() != sha256:
            raise Damaged(f"The object {key} does not have the bytes of its name.")
        return data

    return accept


def is_proven(store: Store, key: str, sha256: bytes, size: int) -> bool:
    """V3: whether the store holds exactly these bytes, by its own checksum; where it shows none, they are read."""
    try:
        info = store.head(key)
        if info.size == size and sha256 == (info.sha256 or _digest(store, key, size)):
            return True
        read_matching(store, key, expect_sha256(key, sha256))
    except Damaged:
        return False
    return True


def _digest(store: Store, key: str, size: int) -> bytes:
    """SHA-256 of an object, read in parts so that many may be read at once in little memory."""
    digest = hashlib.sha256()
    for offset in range(0, size, _PART):
        digest.update(store.get(key, offset=offset, length=_PART))
    return digest.digest()


def _older(store: Store, key: str) -> list[str]:
    """Version ids, oldest first; none where this reader may not list them."""
    try:
        return [each.version for each in reversed(store.versions(key)) if not each.delete_marker]
    except StoreDenied:
        return []
