"""The tree on the local disk: written while a backup runs, sealed at its end, kept as the file cache of the next run.

It holds the tree blocks (and range blocks) in clear, in order, each with a checksum. As the file cache it is that of the
*latest* point alone, block keys included: a thief of the host who also has the bucket can open what the host had at its
last backup, and nothing older. Damage is noticed by the checksum and costs reading files again.

Both a run and its cache are in tree order, so looking a file up is one step of a merge, not a search.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from common.errors import Damaged
from common.vault.entry import Entry, Kind, path_order
from common.vault.tree import Piece, TreeBlock, read_range_block, read_tree_block

_MAGIC = b"SWTF"
_VERSION = 1
_HEADER = struct.Struct("<4sH16s")
_RECORD = struct.Struct("<BII16s")
_TREE = 0
_RANGES = 1

_Entries = Generator[tuple[Entry, TreeBlock, dict[bytes, bytes]], None, None]


@dataclass(frozen=True, slots=True)
class TreeRecord:
    """One block as it was written: plain bytes and, for a tree block, its first path."""

    plain: bytes
    first_path: bytes


class TreeFile:
    """Being written. `keep` turns it into the file cache, `discard` removes it."""

    def __init__(self, path: Path, *, binding: bytes) -> None:
        """`binding` (16 bytes) says what the tree belongs to (vault, domains, chunking); a cache with another is not used."""
        self._path = path
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file: BinaryIO = os.fdopen(handle, "wb")
        self._binding = binding
        self._file.write(_HEADER.pack(_MAGIC, _VERSION, binding))

    def add_tree_block(self, plain: bytes, first_path: bytes) -> None:
        self._add(_TREE, plain, first_path)

    def add_range_block(self, plain: bytes, block_id: bytes) -> None:
        """Must come before the tree block whose entry needs it."""
        self._add(_RANGES, plain, block_id)

    def tree_blocks(self) -> Iterator[TreeRecord]:
        """All tree blocks in order. Raises Damaged when the local disk gives back other bytes than were written."""
        self._file.flush()
        for kind, name, plain in _records(self._path, self._binding):
            if kind == _TREE:
                yield TreeRecord(plain, name)

    def keep(self, as_path: Path) -> None:
        self._file.close()
        self._path.replace(as_path)

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _add(self, kind: int, plain: bytes, name: bytes) -> None:
        checksum = blake3(name + plain).digest(16)
        self._file.write(_RECORD.pack(kind, len(name), len(plain), checksum))
        self._file.write(name)
        self._file.write(plain)


class PreviousTree:
    """The file cache, asked in tree order."""

    def __init__(self, path: Path, *, binding: bytes) -> None:
        self._entries = self._read(path, binding)
        self._now = next(self._entries, None)

    def find(self, path: bytes) -> tuple[Entry, list[Piece]] | None:
        """The file's entry at the last backup and its content. Paths must be asked for in tree order."""
        wanted = path_order(path)
        while self._now is not None and path_order(self._now[0].path) < wanted:
            self._now = next(self._entries, None)
        if self._now is None or self._now[0].path != path:
            return None
        entry, block, ranges = self._now
        try:
            if not entry.range_blocks:
                return entry, list(block.pieces(entry))
            pieces: list[Piece] = []
            for place in block.range_places(entry):
                pieces.extend(read_range_block(ranges[place.id]))
        except (Damaged, KeyError):
            return None
        return entry, pieces

    def close(self) -> None:
        self._entries.close()

    @staticmethod
    def _read(path: Path, binding: bytes) -> _Entries:
        ranges: dict[bytes, bytes] = {}
        with contextlib.suppress(Damaged, OSError):
            for kind, name, plain in _records(path, binding):
                if kind == _RANGES:
                    ranges[name] = plain
                    continue
                block = read_tree_block(plain)
                for entry in block.entries():
                    if entry.kind == Kind.FILE:
                        yield entry, block, ranges
                ranges = {}


def _records(path: Path, binding: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    with path.open("rb") as file:
        front = file.read(_HEADER.size)
        if front != _HEADER.pack(_MAGIC, _VERSION, binding):
            raise Damaged(f"The tree in {path} belongs to something else.")
        while record := file.read(_RECORD.size):
            if len(record) != _RECORD.size:
                raise Damaged(f"The tree in {path} is cut short.")
            kind, name_size, plain_size, checksum = _RECORD.unpack(record)
            name, plain = file.read(name_size), file.read(plain_size)
            if blake3(name + plain).digest(16) != checksum:
                raise Damaged(f"The tree in {path} is damaged.")
            yield kind, name, plain
