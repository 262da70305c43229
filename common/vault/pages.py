"""List pages: which packs (or pages, or index objects) a point needs. Named by the SHA-256 of their bytes.

Layout: 32 random bytes ‖ `"SWLP"` ‖ u16 version ‖ u8 kind ‖ u32 count ‖ records of fixed width:
packs: host (16) ‖ SHA-256 (32) ‖ u64 size; pages: host (16) ‖ SHA-256 (32) ‖ u64 packs in it;
indexes: host (16) ‖ ULID (16) ‖ SHA-256 (32). At most 1,000 records a page of packs.
A later point re-uses a page by naming it, so a head stays small however many packs a point needs.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from common.errors import Damaged, FormatTooNew
from common.ids import ulid_bytes, ulid_text, uuid_bytes, uuid_text
from common.vault import names
from common.vault.documents import NamedObject
from common.vault.packs import HEADER, LARGEST

MAGIC = b"SWLP"
VERSION = 1
MAX_RECORDS = 1000
MAX_NAMED = 16
"""A head names at most so many pages, and so many indexes; more go through one root page."""
_HEADER = struct.Struct("<32s4sHBI")
_PACK = struct.Struct("<16s32sQ")
_INDEX = struct.Struct("<16s16s32s")

R = TypeVar("R")


class PageKind(IntEnum):
    PACKS = 0
    PAGES = 1
    INDEXES = 2


_MAX_COUNT = {PageKind.PACKS: MAX_RECORDS, PageKind.PAGES: 16_384, PageKind.INDEXES: 16_384}


@dataclass(frozen=True, slots=True)
class PackRef:
    """A pack by its host and name."""

    host: str
    sha256: bytes
    size: int

    @property
    def key(self) -> str:
        return names.pack(self.host, self.sha256)


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it is stored: `key`, `data` and what it names."""

    key: str
    data: bytes
    packs: tuple[PackRef, ...] = ()
    objects: tuple[NamedObject, ...] = ()

    @property
    def named(self) -> NamedObject:
        return NamedObject(self.key, hashlib.sha256(self.data).digest())


def pages_of_packs(host: str, packs: Sequence[PackRef], random_bytes: Callable[[int], bytes]) -> list[Page]:
    """Pages that name all of `packs`, of up to 1,000 each."""
    pages = []
    for start in range(0, len(packs), MAX_RECORDS):
        part = tuple(packs[start : start + MAX_RECORDS])
        records = (_PACK.pack(uuid_bytes(pack.host), pack.sha256, pack.size) for pack in part)
        data = _write(PageKind.PACKS, len(part), records, random_bytes)
        pages.append(Page(names.page(host, hashlib.sha256(data).digest()), data, packs=part))
    return pages


def root_page(host: str, kind: PageKind, objects: Sequence[NamedObject], random_bytes: Callable[[int], bytes]) -> Page:
    """One page that names pages or index objects, however many."""
    records = []
    for named in objects:
        _, owner, last = named.key.split("/")
        if kind is PageKind.PAGES:
            records.append(_PACK.pack(uuid_bytes(owner), named.sha256, 0))
        else:
            records.append(_INDEX.pack(uuid_bytes(owner), ulid_bytes(last), named.sha256))
    data = _write(kind, len(records), records, random_bytes)
    return Page(names.page(host, hashlib.sha256(data).digest()), data, objects=tuple(objects))


def read_page(key: str, data: bytes, expected: PageKind) -> Page:
    """Raises Damaged when the bytes are not those of the name, or are no page of this kind; FormatTooNew.

    The kind is the reader's to say: a page of pages where packs are expected would name none, and a point that names no
    pack looks complete.
    """
    width = _INDEX if expected is PageKind.INDEXES else _PACK
    _check_header(key, data, expected, width.size)
    rows = list(width.iter_unpack(data[_HEADER.size :]))
    if expected is PageKind.PACKS:
        if any(not HEADER.size < size <= LARGEST for _, _, size in rows):
            raise Damaged(f"The list page {key} names something that is no pack.")
        return Page(key, data, packs=tuple(PackRef(uuid_text(host), sha, size) for host, sha, size in rows))
    if expected is PageKind.PAGES:
        named = tuple(NamedObject(names.page(uuid_text(host), sha), sha) for host, sha, _ in rows)
    else:
        named = tuple(NamedObject(names.index(uuid_text(host), ulid_text(ulid)), sha) for host, ulid, sha in rows)
    return Page(key, data, objects=named)


def _check_header(key: str, data: bytes, expected: PageKind, width: int) -> None:
    if hashlib.sha256(data).hexdigest() != names.last(key):
        raise Damaged(f"The list page {key} does not have the bytes of its name.")
    if len(data) < _HEADER.size:
        raise Damaged(f"The list page {key} is cut short.")
    _, magic, version, kind, count = _HEADER.unpack_from(data)
    if magic != MAGIC or version < VERSION:
        raise Damaged(f"The object {key} is no list page of a version that exists.")
    if version > VERSION:
        raise FormatTooNew(f"The list page {key} has version {version}; this program knows {VERSION}.")
    if kind != expected or count > _MAX_COUNT[expected]:
        raise Damaged(f"The list page {key} is not of the kind that is expected there.")
    if len(data) != _HEADER.size + count * width:
        raise Damaged(f"The list page {key} has a wrong length.")


def _write(kind: PageKind, count: int, records: Iterable[bytes], random_bytes: Callable[[int], bytes]) -> bytes:
    return _HEADER.pack(random_bytes(32), MAGIC, VERSION, kind, count) + b"".join(records)
