"""The agent's memory on disk: messages seen, jobs, and what is still to be said. One SQLite file, 0600.

Agent and job process both write it (WAL, full sync), each with its own `Journal`. Invariants:
- a job is written here before its message counts as consumed, and its result before the job counts as ended;
- a result leaves only when the coordinator has taken it in (or refused it for good);
- the secret of a restore's ephemeral key is gone, and overwritten, when the job has ended.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common.contracts.jobs import JobEvent, JobMessage, Lease, Progress
from common.ids import new_uuid
from common.privatefiles import write_private

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (jti TEXT PRIMARY KEY, job_id TEXT NOT NULL, seen REAL NOT NULL, exp REAL NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
  job_id TEXT PRIMARY KEY, kind TEXT NOT NULL, message TEXT NOT NULL, state TEXT NOT NULL, received REAL NOT NULL,
  request_id TEXT NOT NULL, lease TEXT, progress TEXT, result TEXT, cancel INTEGER NOT NULL DEFAULT 0,
  crashes INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0,
  repeats INTEGER NOT NULL DEFAULT 0, restore_key BLOB, ended REAL);
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, job_id TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, at REAL NOT NULL);
"""

KEEP_ENDED_S = 30 * 86_400.0
"""How long an ended job and a seen message are remembered; messages no shorter than they are valid."""


class Phase(StrEnum):
    """Where a job stands on this host."""

    WAITING = "waiting"
    RUNNING = "running"
    """Its process lives, or died and is to be started again with the same lease."""
    ENDED = "ended"
    DROPPED = "dropped"
    """The lease went elsewhere: nothing is to be said about this attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalledJob:
    job_id: str
    kind: str
    message: str
    phase: Phase
    request_id: str
    lease: Lease | None
    progress: Progress | None
    result: JobEvent | None
    cancel: bool
    crashes: int
    repeats: int
    """How often its result was said again."""
    restore_key: bytes | None
    received: float
    ended: float | None


class Journal:
    """One connection a call: usable from every thread; each method is one transaction."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        if not path.exists():
            write_private(path, b"")
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)

    # messages and jobs ──────────────────────────────────────────────────────────────────────────────────────────────

    def job(self, job_id: str) -> JournalledJob | None:
        with self._transaction() as db:
            row = db.execute("SELECT * FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return None if row is None else _job(row)

    def jobs(self, *phases: Phase) -> list[JournalledJob]:
        """In order of their arrival."""
        with self._transaction() as db:
            rows = db.execute("SELECT * FROM jobs ORDER BY received, job_id").fetchall()
        return [job for job in map(_job, rows) if job.phase in phases]

    def seen(self, jti: str) -> bool:
        with self._transaction() as db:
            return db.execute("SELECT 1 FROM messages WHERE jti = ?", (jti,)).fetchone() is not None

    def add_job(self, claims: JobMessage, message: str) -> None:
        """Journal a job to be run. For one that ended or was dropped here: run it anew, with a new lease."""
        now = self._clock()
        with self._transaction() as db:
            seen = (claims.jti, claims.job_id, now, claims.exp)
            db.execute("INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?)", seen)
            db.execute(
                "INSERT INTO jobs (job_id, kind, message, state, received, request_id) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (job_id) DO UPDATE SET message = excluded.message, state = excluded.state,"
                " received = excluded.received, request_id = excluded.request_id, lease = NULL, progress = NULL,"
                " result = NULL, cancel = 0, crashes = 0, not_before = 0, repeats = 0, restore_key = NULL,"
                " ended = NULL",
                (claims.job_id, claims.spec.kind, message, Phase.WAITING, now, new_uuid()),
            )
            db.execute("DELETE FROM messages WHERE exp < ? AND seen < ?", (now, now - KEEP_ENDED_S))
            db.execute("DELETE FROM jobs WHERE ended < ?", (now - KEEP_ENDED_S,))

    def next_job(self) -> JournalledJob | None:
        """A job that was interrupted, else the one that waits longest and may start now."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE state IN (?, ?) AND not_before <= ?"
                " ORDER BY state = ? DESC, received LIMIT 1",
                (Phase.RUNNING, Phase.WAITING, self._clock(), Phase.RUNNING),
            ).fetchone()
        return None if row is None else _job(row)

    def start(self, job_id: str, lease: Lease) -> None:
        self._update(job_id, state=Phase.RUNNING, lease=lease.model_dump_json())

    def postpone(self, job_id: str, delay_s: float) -> None:
        """The job goes on waiting, and is not tried before `delay_s` have passed."""
        self._update(job_id, not_before=self._clock() + delay_s)

    def crashed(self, job_id: str, delay_s: float) -> int:
        """Count a death of the job's process; how many there were."""
        with self._transaction() as db:
            again = self._clock() + delay_s
            db.execute("UPDATE jobs SET crashes = crashes + 1, not_before = ? WHERE job_id = ?", (again, job_id))
            row = db.execute("SELECT crashes FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return 0 if row is None else int(row["crashes"])

    def drop(self, job_id: str) -> None:
        self._update(job_id, state=Phase.DROPPED, ended=self._clock(), restore_key=None)

    def cancel(self, job_id: str) -> None:
        self._update(job_id, cancel=1, not_before=0)

    def cancelled(self, job_id: str) -> bool:
        with self._transaction() as db:
            row = db.execute("SELECT cancel FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return row is not None and bool(row["cancel"])

    def keep_progress(self, job_id: str, progress: Progress) -> None:
        self._update(job_id, progress=progress.model_dump_json())

    def keep_restore_key(self, job_id: str, private: bytes) -> None:
        self._update(job_id, restore_key=private)

    # what is to be said ─────────────────────────────────────────────────────────────────────────────────────────────

    def end(self, event: JobEvent) -> None:
        """The job has ended with this result, which waits to be sent: one step on disk."""
        body = event.model_dump_json()
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?)", (event.id, event.job_id, body))
            db.execute(
                "UPDATE jobs SET state = ?, result = ?, ended = ?, restore_key = NULL WHERE job_id = ?",
                (Phase.ENDED, body, self._clock(), event.job_id),
            )

    def say_again(self, job_id: str) -> bool:
        """Put the stored result of an ended job into the spool once more; False when there is none."""
        with self._transaction() as db:
            row = db.execute("SELECT result FROM jobs WHERE job_id = ? AND state = ?", (job_id, Phase.ENDED)).fetchone()
            if row is None or row["result"] is None:
                return False
            event = JobEvent.model_validate_json(row["result"])
            db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?)", (event.id, job_id, row["result"]))
            db.execute("UPDATE jobs SET repeats = repeats + 1 WHERE job_id = ?", (job_id,))
        return True

    def unsent(self, limit: int = 100) -> list[JobEvent]:
        with self._transaction() as db:
            rows = db.execute("SELECT body FROM events ORDER BY id LIMIT ?", (limit,)).fetchall()
        return [JobEvent.model_validate_json(row["body"]) for row in rows]

    def is_unsent(self, job_id: str) -> bool:
        with self._transaction() as db:
            return db.execute("SELECT 1 FROM events WHERE job_id = ?", (job_id,)).fetchone() is not None

    def sent(self, event_ids: tuple[str, ...]) -> None:
        with self._transaction() as db:
            db.executemany("DELETE FROM events WHERE id = ?", [(event_id,) for event_id in event_ids])

    # counters and facts ─────────────────────────────────────────────────────────────────────────────────────────────

    def count(self, name: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (name,))

    def counters(self) -> dict[str, int]:
        with self._transaction() as db:
            return {row["name"]: row["value"] for row in db.execute("SELECT name, value FROM counters ORDER BY name")}

    def note(self, name: str, value: str) -> None:
        """Remember a fact for `status`, with its time."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (name, value, self._clock()))

    def facts(self) -> dict[str, tuple[str, float]]:
        with self._transaction() as db:
            return {row["name"]: (row["value"], row["at"]) for row in db.execute("SELECT * FROM facts ORDER BY name")}

    # ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _update(self, job_id: str, **columns: object) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)  # names are this module's own
        with self._transaction() as db:
            db.execute(f"UPDATE jobs SET {names} WHERE job_id = ?", (*columns.values(), job_id))  # noqa: S608

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            yield db
        finally:
            db.close()


def _job(row: sqlite3.Row) -> JournalledJob:
    return JournalledJob(
        job_id=row["job_id"],
        kind=row["kind"],
        message=row["message"],
        phase=Phase(row["state"]),
        request_id=row["request_id"],
        lease=None if row["lease"] is None else Lease.model_validate_json(row["lease"]),
        progress=None if row["progress"] is None else Progress.model_validate_json(row["progress"]),
        result=None if row["result"] is None else JobEvent.model_validate_json(row["result"]),
        cancel=bool(row["cancel"]),
        crashes=row["crashes"],
        repeats=row["repeats"],
        restore_key=row["restore_key"],
        received=row["received"],
        ended=row["ended"],
    )
