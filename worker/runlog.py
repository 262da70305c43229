"""The journal of one backup job on this host: which packs it has put into the store, and the finished point.

It lets the next attempt of the same job re-use what was uploaded, after a kill -9 too. A pack is written down before its
PUT and again when the store has answered; one whose answer is missing is asked for at the next attempt, so that no stored
pack is sent again. A torn or damaged end is cut off by its checksum. The point is here whole, and durable, before its
first PUT: HPKE is random, and built again it would differ.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from blake3 import blake3

_FRAME = struct.Struct("<I16s")
_MAX_FRAME = 256 * 1024 * 1024
REUSE_S = 24 * 3600
"""Packs that no lease names yet count for so long."""


class JournalJob(msgspec.Struct, frozen=True, tag="job"):
    job: str
    vault: str


class JournalPack(msgspec.Struct, frozen=True, tag="pack"):
    host: str
    domain: str
    sha256: bytes
    size: int
    rows: list[tuple[bytes, int, int]]
    """Block id, offset, length."""
    at: float
    """Seconds since 1970 by this host's clock."""


class JournalStored(msgspec.Struct, frozen=True, tag="stored"):
    sha256: bytes
    """Of a pack whose PUT the store has answered."""


class JournalPoint(msgspec.Struct, frozen=True, tag="point"):
    point: str
    epoch: int
    fence: int
    raw: bytes
    report: bytes
    """The report of the job, as JSON."""


_Record = JournalJob | JournalPack | JournalStored | JournalPoint


@dataclass(slots=True)
class Journal:
    """What an earlier attempt of this job left; appended to by this one. `append_*` may be called by several threads if
    the caller holds a lock."""

    path: Path
    job: str
    packs: list[JournalPack] = field(default_factory=list)
    """Stored."""
    unsure: list[JournalPack] = field(default_factory=list)
    """On their way when the attempt ended."""
    point: JournalPoint | None = None

    @classmethod
    def open(cls, path: Path, *, job: str, vault: str, clock: Callable[[], float]) -> Journal:
        """Continue the journal of this job, or begin a new one when it is of another job or vault."""
        records, good = _read(path)
        head = records[0] if records else None
        if not isinstance(head, JournalJob) or head.job != job or head.vault != vault:
            journal = cls(path, job)
            journal._begin(vault)
            return journal
        if path.stat().st_size > good:
            os.truncate(path, good)
        journal = cls(path, job)
        now = clock()
        sent: dict[bytes, JournalPack] = {}
        for record in records[1:]:
            if isinstance(record, JournalPack) and 0 <= now - record.at < REUSE_S:
                sent[record.sha256] = record
            elif isinstance(record, JournalStored) and record.sha256 in sent:
                journal.packs.append(sent.pop(record.sha256))
            elif isinstance(record, JournalPoint):
                journal.point = record
        journal.unsure = list(sent.values())
        return journal

    @staticmethod
    def unfinished_job(path: Path, vault: str) -> str | None:
        """The job of a journal that was left behind (standalone: the next run continues it)."""
        records, _ = _read(path)
        head = records[0] if records else None
        return head.job if isinstance(head, JournalJob) and head.vault == vault else None

    def append(self, record: JournalPack | JournalStored | JournalPoint) -> None:
        """Write a record; a point is made durable before this returns."""
        with self.path.open("ab") as file:
            file.write(_frame(record))
            if isinstance(record, JournalPoint):
                file.flush()
                os.fsync(file.fileno())

    def finish(self) -> None:
        """The job has its result: nothing is left to continue."""
        self.path.unlink(missing_ok=True)

    def _begin(self, vault: str) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(_frame(JournalJob(self.job, vault)))


def _frame(record: _Record) -> bytes:
    body = msgspec.msgpack.encode(record)
    return _FRAME.pack(len(body), blake3(body).digest(16)) + body


def _read(path: Path) -> tuple[list[_Record], int]:
    """Records up to the first damage, and how many bytes they take."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    records: list[_Record] = []
    at = 0
    while at + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, at)
        body = data[at + _FRAME.size : at + _FRAME.size + length]
        if length > _MAX_FRAME or len(body) != length or blake3(body).digest(16) != checksum:
            break
        records.append(msgspec.msgpack.decode(body, type=JournalJob | JournalPack | JournalStored | JournalPoint))
        at += _FRAME.size + length
    return records, at
