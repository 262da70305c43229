"""The local block cache: from plain bytes to the sealed block they become, so that known bytes are not compressed again.

A thief of the host must not learn from it what the host no longer has: no fingerprint is stored. An entry is found by
`derive(fp, "lookup")` and holds the block key masked with `derive(fp, "mask")`, so only who has the plain block can use
it. It saves work and decides nothing; when it is lost or damaged it is made anew. Each entry carries a checksum over what
it says, keyed by the fingerprint too: a disk that gives back a wrong key must not get it into a tree, where it would make
the block unreadable for good.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from blake3 import blake3

from common.vault.derive import DomainKeys, joined

_SCHEMA = "CREATE TABLE IF NOT EXISTS blocks (lookup BLOB PRIMARY KEY, id BLOB, masked BLOB, proof BLOB) WITHOUT ROWID"
_SELECT = "SELECT id, masked, proof FROM blocks WHERE lookup = ?"
_BATCH = 500


class BlockCache:
    """Safe for several threads. `codec` names the compressor: another one has a cache of its own."""

    def __init__(self, folder: Path, codec: str) -> None:
        self._path = folder / f"blocks-{codec}.2.sqlite"
        self._lock = threading.Lock()
        self._waiting: dict[bytes, tuple[bytes, bytes, bytes]] = {}
        try:
            self._database = self._open()
        except sqlite3.DatabaseError:
            self._path.unlink(missing_ok=True)
            self._database = self._open()

    def find(self, keys: DomainKeys, fingerprint: bytes) -> tuple[bytes, bytes] | None:
        """(block id, block key) of these plain bytes, if they were sealed here before."""
        lookup = _lookup(keys, fingerprint)
        with self._lock:
            row = self._waiting.get(lookup)
            if row is None:
                with contextlib.suppress(sqlite3.DatabaseError):
                    row = self._database.execute(_SELECT, (lookup,)).fetchone()
        if row is None or row[2] != _proof(keys, fingerprint, row[0], row[1]):
            return None
        return row[0], _masked(keys, fingerprint, row[1])

    def put(self, keys: DomainKeys, fingerprint: bytes, block_id: bytes, key: bytes) -> None:
        with self._lock:
            masked = _masked(keys, fingerprint, key)
            proof = _proof(keys, fingerprint, block_id, masked)
            self._waiting[_lookup(keys, fingerprint)] = (block_id, masked, proof)
            if len(self._waiting) >= _BATCH:
                self._write()

    def close(self) -> None:
        with self._lock:
            self._write()
            self._database.close()

    def _write(self) -> None:
        rows = [(lookup, *row) for lookup, row in self._waiting.items()]
        self._waiting.clear()
        with contextlib.suppress(sqlite3.DatabaseError), self._database:
            self._database.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        database = sqlite3.connect(self._path, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")
            database.execute(_SCHEMA)
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database


def _lookup(keys: DomainKeys, fingerprint: bytes) -> bytes:
    return blake3(b"lookup" + fingerprint, key=keys.cache).digest()


def _proof(keys: DomainKeys, fingerprint: bytes, block_id: object, masked: object) -> bytes:
    """16 bytes; empty for values that no entry has."""
    if not isinstance(block_id, bytes) or not isinstance(masked, bytes):
        return b""
    return blake3(joined(b"proof", fingerprint, block_id, masked), key=keys.cache).digest(16)


def _masked(keys: DomainKeys, fingerprint: bytes, value: bytes) -> bytes:
    mask = blake3(b"mask" + fingerprint, key=keys.cache).digest()
    return bytes(a ^ b for a, b in zip(value, mask, strict=True))
