"""The tree: entries in path order, cut into tree blocks that a restore can read with nothing but the root.

A tree block (plain, before it is sealed with the host-only secret)::

    "SWTB" ‖ u16 version ‖ u32 packs ‖ u32 blocks
    packs:   host (16) ‖ SHA-256 (32)
    blocks:  u32 pack ‖ u32 offset ‖ u32 length ‖ u32 plain size ‖ id (32) ‖ key (32)
    entries: u32 length ‖ msgpack array (`Entry`), back to back

Its own table comes first and the entries' ranges index it, so restore reads no index and needs no domain secret. Blocks
end at entries whose keyed hash says so (or at 1 MiB), so a tree with one change differs in one block.
A *range block* has the same front and, for entries, ranges of one long file: i32 block (−1 a hole) ‖ u32 offset ‖
u64 length. The *root* names the tree blocks with place, key and first path.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from blake3 import blake3

from common.errors import Damaged, FormatTooNew
from common.ids import uuid_bytes, uuid_text
from common.vault.blocks import MAX_PLAIN, MAX_SEALED
from common.vault.entry import Entry
from common.vault.packs import HEADER
from common.vault.signed import FORMAT_VERSION, decode

MAGIC = b"SWTB"
VERSION = 1
_FRONT = struct.Struct("<4sHII")
_PACK = struct.Struct("<16s32s")
_BLOCK = struct.Struct("<IIII32s32s")
_RANGE = struct.Struct("<iIQ")
_LENGTH = struct.Struct("<I")
_ENTRY = msgspec.msgpack.Decoder(Entry)
MIN_BLOCK = 64 * 1024
MAX_BLOCK = 1024 * 1024
_BOUNDARY = 512
INLINE_RANGES = 256
"""A file with more ranges keeps them in range blocks."""
RANGES_PER_BLOCK = 8192
HOLE = -1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed block lies, and what opens it."""

    host: str
    pack: bytes
    offset: int
    length: int
    plain_size: int
    id: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a file's content: `length` bytes from `offset` of a block, or of zeros when `place` is None."""

    place: Place | None
    offset: int
    length: int


class RootBlock(msgspec.Struct, frozen=True, array_like=True):
    host: bytes
    pack: bytes
    offset: int
    length: int
    plain_size: int
    id: bytes
    key: bytes
    first_path: bytes

    @property
    def place(self) -> Place:
        """Raises Damaged where it cannot be a place."""
        sizes = (len(self.host), len(self.pack), len(self.id), len(self.key))
        if sizes != (16, 32, 32, 32):
            raise Damaged("The root names something that is no place of a block.")
        check_place(self.offset, self.length, self.plain_size)
        return Place(uuid_text(self.host), self.pack, self.offset, self.length, self.plain_size, self.id, self.key)


class Root(msgspec.Struct, frozen=True, kw_only=True):
    v: int = FORMAT_VERSION
    blocks: list[RootBlock]


def check_place(offset: int, length: int, plain_size: int) -> None:
    """Raises Damaged unless a block can lie there."""
    if offset < HEADER.size or not 0 < length <= MAX_SEALED or not 0 <= plain_size <= MAX_PLAIN:
        raise Damaged("A block is said to lie where none can.")


def write_root(blocks: Iterable[tuple[Place, bytes]]) -> bytes:
    """The root for tree blocks in order, each with its first path."""
    rows = [
        RootBlock(uuid_bytes(at.host), at.pack, at.offset, at.length, at.plain_size, at.id, at.key, first)
        for at, first in blocks
    ]
    return msgspec.msgpack.encode(Root(blocks=rows))


def read_root(raw: bytes) -> Root:
    """Raises Damaged, FormatTooNew."""
    return decode(raw, Root)


class _Table:
    """Collects places, each once."""

    def __init__(self) -> None:
        self._packs: dict[tuple[str, bytes], int] = {}
        self._blocks: dict[bytes, int] = {}
        self._rows: list[bytes] = []

    def add(self, place: Place) -> int:
        number = self._blocks.get(place.id)
        if number is None:
            number = self._blocks[place.id] = len(self._rows)
            pack = self._packs.setdefault((place.host, place.pack), len(self._packs))
            self._rows.append(_BLOCK.pack(pack, place.offset, place.length, place.plain_size, place.id, place.key))
        return number

    def front(self) -> bytes:
        packs = b"".join(_PACK.pack(uuid_bytes(host), sha) for host, sha in self._packs)
        return _FRONT.pack(MAGIC, VERSION, len(self._packs), len(self._rows)) + packs + b"".join(self._rows)

    @property
    def size(self) -> int:
        return _FRONT.size + len(self._packs) * _PACK.size + len(self._rows) * _BLOCK.size


class TreeBlockBuilder:
    """Collects entries; says when a block is full. `gear` keys the boundaries."""

    def __init__(self, gear: bytes) -> None:
        self._gear = gear
        self._reset()

    def add(self, entry: Entry, pieces: Iterable[Piece], range_blocks: Iterable[Place] = ()) -> bool:
        """Take an entry with its content; True when the block should end here."""
        if not self._entries:
            self.first_path = entry.path
        ranges: list[int] = []
        for piece in pieces:
            number = HOLE if piece.place is None else self._table.add(piece.place)
            ranges += (number, piece.offset, piece.length)
        spilled = tuple(self._table.add(place) for place in range_blocks)
        packed = msgspec.msgpack.encode(msgspec.structs.replace(entry, ranges=tuple(ranges), range_blocks=spilled))
        self._entries += (_LENGTH.pack(len(packed)), packed)
        self._size += len(packed) + _LENGTH.size
        size = self._size + self._table.size
        return size >= MAX_BLOCK or (size >= MIN_BLOCK and self._is_boundary(entry.path))

    def finish(self) -> bytes:
        """The block's plain bytes; the builder starts anew."""
        plain = self._table.front() + b"".join(self._entries)
        self._reset()
        return plain

    @property
    def empty(self) -> bool:
        return not self._entries

    def _is_boundary(self, path: bytes) -> bool:
        return int.from_bytes(blake3(path, key=self._gear).digest(4), "little") % _BOUNDARY == 0

    def _reset(self) -> None:
        self._table = _Table()
        self._entries: list[bytes] = []
        self._size = 0
        self.first_path = b""


def write_range_block(pieces: Iterable[Piece]) -> bytes:
    """Plain bytes of a range block for up to 8,192 pieces."""
    table = _Table()
    rows = [
        _RANGE.pack(HOLE if piece.place is None else table.add(piece.place), piece.offset, piece.length)
        for piece in pieces
    ]
    return table.front() + b"".join(rows)


@dataclass(frozen=True, slots=True)
class TreeBlock:
    """A tree block, opened. Entries are decoded as they are asked for."""

    places: tuple[Place, ...]
    _body: memoryview

    def entries(self) -> Iterator[Entry]:
        """Raises Damaged in the middle when the rest cannot be read."""
        at = 0
        while at < len(self._body):
            try:
                (length,) = _LENGTH.unpack_from(self._body, at)
                end = at + _LENGTH.size + length
                if end > len(self._body):
                    raise Damaged("An entry of the tree is cut short.")
                yield _ENTRY.decode(self._body[at + _LENGTH.size : end])
            except (msgspec.MsgspecError, UnicodeDecodeError, struct.error, RecursionError) as error:
                raise Damaged(f"An entry of the tree cannot be read ({error}).") from error
            at = end

    def pieces(self, entry: Entry) -> Iterator[Piece]:
        """Content of an entry that keeps its ranges here."""
        ranges = entry.ranges
        if len(ranges) % 3:
            raise Damaged(f"The ranges of {entry.path!r} are not triples.")
        for at in range(0, len(ranges), 3):
            yield _piece(self.places, ranges[at], ranges[at + 1], ranges[at + 2])

    def range_places(self, entry: Entry) -> list[Place]:
        """Places of the range blocks of an entry."""
        return [_at(self.places, number) for number in entry.range_blocks]


def read_tree_block(plain: bytes) -> TreeBlock:
    """Raises Damaged, FormatTooNew."""
    places, body = _read_front(plain)
    return TreeBlock(places, body)


def read_range_block(plain: bytes) -> Iterator[Piece]:
    """Raises Damaged, FormatTooNew."""
    places, body = _read_front(plain)
    if len(body) % _RANGE.size:
        raise Damaged("A range block has a wrong length.")
    for number, offset, length in _RANGE.iter_unpack(body):
        yield _piece(places, number, offset, length)


def _read_front(plain: bytes) -> tuple[tuple[Place, ...], memoryview]:
    if len(plain) < _FRONT.size or plain[:4] != MAGIC:
        raise Damaged("A block of the tree is not one.")
    _, version, pack_count, block_count = _FRONT.unpack_from(plain)
    if version < VERSION:
        raise Damaged("A block of the tree does not say a version that exists.")
    if version > VERSION:
        raise FormatTooNew(f"The tree has version {version}; this program knows {VERSION}.")
    packs_end = _FRONT.size + pack_count * _PACK.size
    blocks_end = packs_end + block_count * _BLOCK.size
    if blocks_end > len(plain):
        raise Damaged("A block of the tree is cut short.")
    view = memoryview(plain)
    packs: list[tuple[str, bytes]] = [
        (uuid_text(host), sha) for host, sha in _PACK.iter_unpack(view[_FRONT.size : packs_end])
    ]
    places = []
    for number, offset, length, plain_size, block_id, key in _BLOCK.iter_unpack(view[packs_end:blocks_end]):
        if number >= pack_count:
            raise Damaged("A block of the tree names a pack that it does not list.")
        check_place(offset, length, plain_size)
        host, pack = packs[number]
        places.append(Place(host, pack, offset, length, plain_size, block_id, key))
    return tuple(places), view[blocks_end:]


def _at(places: tuple[Place, ...], number: int) -> Place:
    if not 0 <= number < len(places):
        raise Damaged("An entry of the tree names a block that is not in its table.")
    return places[number]


def _piece(places: tuple[Place, ...], number: int, offset: int, length: int) -> Piece:
    if length < 0 or offset < 0:
        raise Damaged("An entry of the tree has a range of negative size.")
    if number == HOLE:
        return Piece(None, 0, length)
    place = _at(places, number)
    if offset + length > place.plain_size:
        raise Damaged("An entry of the tree has a range beyond its block.")
    return Piece(place, offset, length)
