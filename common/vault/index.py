"""Index objects: block id → pack, offset, length, for packs of one host and one dedup domain.

Layout: `"SWIX"` ‖ u16 version ‖ 32 random bytes ‖ domain id (16) ‖ ciphertext. Sealed with AES-256-GCM under
`BLAKE3(key = K_index, 32 random bytes ‖ object key)`, nonce 0 (the key is used once), AAD = object key.
Plain: u32 length ‖ msgpack {codec, packs} ‖ records sorted by id: id (32) ‖ u32 pack ‖ u32 offset ‖ u32 length.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.errors import Damaged, FormatTooNew
from common.ids import uuid_bytes, uuid_text
from common.vault.blocks import MAX_SEALED, NONCE
from common.vault.derive import DomainKeys
from common.vault.packs import HEADER, LARGEST
from common.vault.signed import FORMAT_VERSION, decode

MAGIC = b"SWIX"
VERSION = 1
_HEADER = struct.Struct("<4sH32s16s")
_RECORD = struct.Struct("<32sIII")
_ID_SIZE = 32


class _Front(msgspec.Struct, frozen=True, kw_only=True):
    v: int = FORMAT_VERSION
    codec: str
    host: bytes
    packs: list[tuple[bytes, int]]
    """SHA-256 and size of each pack."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One block: `pack` is the SHA-256 of the pack that holds it."""

    id: bytes
    pack: bytes
    pack_size: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Index:
    """An opened index. Rows stay packed; `find` is a binary search in them."""

    host: str
    domain_id: str
    codec: str
    packs: tuple[tuple[bytes, int], ...]
    _rows: memoryview

    def __len__(self) -> int:
        return len(self._rows) // _RECORD.size

    def find(self, block_id: bytes) -> IndexRow | None:
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            at = middle * _RECORD.size
            found = bytes(self._rows[at : at + _ID_SIZE])
            if found == block_id:
                return self._row(at)
            if found < block_id:
                low = middle + 1
            else:
                high = middle
        return None

    def rows(self) -> Iterator[IndexRow]:
        for at in range(0, len(self._rows), _RECORD.size):
            yield self._row(at)

    def _row(self, at: int) -> IndexRow:
        block_id, pack, offset, length = _RECORD.unpack_from(self._rows, at)
        if pack >= len(self.packs):
            raise Damaged("An index names a pack that it does not list.")
        sha256, size = self.packs[pack]
        if not (HEADER.size <= offset and 0 < length <= MAX_SEALED and offset + length <= size):
            raise Damaged("An index names bytes that its pack does not have.")
        return IndexRow(block_id, sha256, size, offset, length)


def write_index(
    rows: Sequence[IndexRow],
    *,
    host: str,
    object_key: str,
    keys: DomainKeys,
    codec: str,
    random_bytes: Callable[[int], bytes],
) -> bytes:
    """The bytes of an index object. Of several rows with one id the last one counts."""
    packs: dict[bytes, tuple[int, int]] = {}
    for row in rows:
        packs.setdefault(row.pack, (len(packs), row.pack_size))
    by_id = {row.id: row for row in rows}
    body = b"".join(
        _RECORD.pack(block_id, packs[row.pack][0], row.offset, row.length) for block_id, row in sorted(by_id.items())
    )
    front = msgspec.msgpack.encode(
        _Front(codec=codec, host=uuid_bytes(host), packs=[(sha, size) for sha, (_, size) in packs.items()])
    )
    random = random_bytes(32)
    plain = struct.pack("<I", len(front)) + front + body
    sealed = AESGCM(_key(keys, random, object_key)).encrypt(NONCE, plain, object_key.encode())
    return _HEADER.pack(MAGIC, VERSION, random, uuid_bytes(keys.domain_id)) + sealed


def index_domain(data: bytes, object_key: str) -> str:
    """The domain an index object belongs to, which stands in the clear. Raises Damaged, FormatTooNew."""
    if len(data) < _HEADER.size or data[:4] != MAGIC:
        raise Damaged(f"The object {object_key} is no index.")
    _, version, _, domain = _HEADER.unpack_from(data)
    if version < VERSION:
        raise Damaged(f"The index {object_key} does not say a version that exists.")
    if version > VERSION:
        raise FormatTooNew(f"The index {object_key} has version {version}; this program knows {VERSION}.")
    return uuid_text(domain)


def read_index(data: bytes, *, object_key: str, keys: DomainKeys) -> Index:
    """Raises Damaged (not an index, changed, or of another domain), FormatTooNew."""
    if index_domain(data, object_key) != keys.domain_id:
        raise Damaged(f"The index {object_key} belongs to another domain.")
    _, _, random, _ = _HEADER.unpack_from(data)
    try:
        plain = AESGCM(_key(keys, random, object_key)).decrypt(NONCE, data[_HEADER.size :], object_key.encode())
    except InvalidTag as error:
        raise Damaged(f"The index {object_key} does not open: it was changed.") from error
    if len(plain) < 4:  # noqa: PLR2004  # u32
        raise Damaged(f"The index {object_key} is cut short.")
    (length,) = struct.unpack_from("<I", plain)
    front = decode(memoryview(plain)[4 : 4 + length], _Front)
    rows = memoryview(plain)[4 + length :]
    if len(rows) % _RECORD.size:
        raise Damaged(f"The index {object_key} has a wrong length.")
    if uuid_bytes(object_key.split("/")[1]) != front.host:
        raise Damaged(f"The index {object_key} speaks of another host.")
    if any(len(sha256) != _ID_SIZE or not 0 < size <= LARGEST for sha256, size in front.packs):
        raise Damaged(f"The index {object_key} names something that is no pack.")
    return Index(uuid_text(front.host), keys.domain_id, front.codec, tuple(front.packs), rows)


def _key(keys: DomainKeys, random: bytes, object_key: str) -> bytes:
    return blake3(random + object_key.encode(), key=keys.index).digest()
