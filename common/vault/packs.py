"""Packs: sealed blocks of one domain, back to back, named by the SHA-256 of the whole (V3).

Layout: `"SWPK"` ‖ u16 version ‖ 32 random bytes ‖ blocks ‖ padding. The random bytes make a name unique to an attempt: a
condemned pack can never be "uploaded again" into a deletion. A pack closes at a size drawn between 14 and 18 MiB, so that
sizes in the store tell nothing about blocks. One buffer holds the pack from its first block to the PUT: no copy is made.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from common.vault.blocks import SealedBlock

MAGIC = b"SWPK"
VERSION = 1
HEADER = struct.Struct("<4sH32s")
MIN_CLOSE = 14 * 1024 * 1024
MAX_CLOSE = 18 * 1024 * 1024
LARGEST = MAX_CLOSE + 5 * 1024 * 1024
"""No pack is larger: it closes with the block that passes its drawn size."""


@dataclass(slots=True, eq=False)
class PackName:
    """A pack: its name is known only once it is full, and `stored` is set once the store has it."""

    host: str
    sha256: bytes = b""
    size: int = 0
    stored: bool = False


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """Where a block lies. `pack` may still be open."""

    id: bytes
    key: bytes = field(repr=False)
    pack: PackName
    offset: int
    length: int
    """Sealed bytes."""
    plain_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedPack:
    """A full pack; `data` belongs to the receiver."""

    name: PackName
    domain_id: str
    data: bytearray = field(repr=False)
    blocks: tuple[PackedBlock, ...]

    def give_name(self) -> bytes:
        """Hash the bytes, which names the pack: 10 ms, so it is done by whoever uploads. Returns the SHA-256."""
        self.name.sha256 = hashlib.sha256(self.data).digest()
        return self.name.sha256


def padding(size: int) -> int:
    """Random bytes to append, so that the size of a pack that closes early tells little about its blocks: up to the next
    multiple of 1/16 of its power of two (at least 4 KiB), 6 % on average of small packs. No place names them."""
    step = max(4096, 1 << max(size.bit_length() - 5, 0))
    return -size % step if size < MIN_CLOSE else 0


class PackBuilder:
    """Fills one pack after the other for one host and domain. Not for several threads at once."""

    def __init__(self, *, host: str, domain_id: str, random_bytes: Callable[[int], bytes]) -> None:
        self._host = host
        self._domain_id = domain_id
        self._random_bytes = random_bytes
        self._begin()

    def add(self, block: SealedBlock) -> PackedBlock:
        place = PackedBlock(block.id, block.key, self._name, len(self._data), len(block.data), block.plain_size)
        self._data += block.data
        self._blocks.append(place)
        return place

    @property
    def full(self) -> bool:
        """Whether the pack has reached its drawn size: `close` it."""
        return len(self._data) >= self._close_at

    def close(self) -> ClosedPack | None:
        """The pack as it is, None when it is empty; the builder starts the next."""
        if not self._blocks:
            return None
        self._data += self._random_bytes(padding(len(self._data)))
        self._name.size = len(self._data)
        done = ClosedPack(name=self._name, domain_id=self._domain_id, data=self._data, blocks=tuple(self._blocks))
        self._begin()
        return done

    def _begin(self) -> None:
        self._name = PackName(self._host)
        self._data = bytearray(HEADER.pack(MAGIC, VERSION, self._random_bytes(32)))
        self._blocks: list[PackedBlock] = []
        span = MAX_CLOSE - MIN_CLOSE
        self._close_at = MIN_CLOSE + int.from_bytes(self._random_bytes(4), "little") % span
