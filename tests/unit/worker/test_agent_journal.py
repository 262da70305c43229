"""The journal: order of jobs, one step for a result, private on disk, shared by processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.contracts.jobs import BackupSpec, JobEvent, JobMessage, JobReport
from common.errors import Busy
from common.ids import new_ulid, new_uuid
from common.jobstates import JobState
from worker.journal import Journal, Phase
from worker.onlyone import only_one

HOST = new_uuid()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Journal:
    return Journal(tmp_path / "agent.db", clock)


def add(journal: Journal, clock: Clock) -> str:
    clock.now += 1
    job_id = new_uuid()
    claims = JobMessage(
        iss="c", aud=HOST, jti=new_uuid(), iat=0, nbf=0, exp=9_999_999, job_id=job_id, spec=BackupSpec()
    )
    journal.add_job(claims, "message")
    return job_id


def event(job_id: str) -> JobEvent:
    return JobEvent(
        id=new_ulid(),
        job_id=job_id,
        attempt=1,
        epoch=1,
        fence=1,
        state=JobState.FAILED,
        at=datetime.fromtimestamp(0, UTC),
        report=JobReport(code="internal"),
    )


def next_id(journal: Journal) -> str | None:
    job = journal.next_job()
    return None if job is None else job.job_id


def test_jobs_start_in_order_of_arrival_and_the_interrupted_one_first(journal: Journal, clock: Clock) -> None:
    first, second = add(journal, clock), add(journal, clock)
    assert next_id(journal) == first
    journal._update(second, state=Phase.RUNNING)
    assert next_id(journal) == second


def test_a_postponed_job_lets_the_others_pass_and_comes_back(journal: Journal, clock: Clock) -> None:
    first, second = add(journal, clock), add(journal, clock)
    journal.postpone(first, 60)
    assert next_id(journal) == second
    clock.now += 61
    assert next_id(journal) == first


def test_a_cancel_ends_the_waiting(journal: Journal, clock: Clock) -> None:
    first = add(journal, clock)
    journal.postpone(first, 3600)
    journal.cancel(first)
    assert next_id(journal) == first
    assert journal.cancelled(first)


def test_a_result_and_the_end_of_its_job_are_one_step(journal: Journal, clock: Clock) -> None:
    job_id = add(journal, clock)
    journal.keep_restore_key(job_id, b"secret")
    said = event(job_id)
    journal.end(said)
    journal.end(said)
    job = journal.job(job_id)
    assert job
    assert (job.phase, job.result, job.restore_key) == (Phase.ENDED, said, None)
    assert journal.unsent() == [said]
    journal.sent((said.id, new_ulid()))
    assert journal.unsent() == []
    assert next_id(journal) is None


def test_an_erased_restore_key_leaves_no_trace_in_the_files(journal: Journal, clock: Clock, tmp_path: Path) -> None:
    job_id = add(journal, clock)
    journal.keep_restore_key(job_id, b"!restore-key-of-32-bytes-exactly!")
    journal.end(event(job_id))
    assert not [path for path in tmp_path.iterdir() if b"!restore-key" in path.read_bytes()]


def break_off(journal: Journal) -> None:
    with journal._transaction() as db:
        db.execute("DELETE FROM jobs")
        db.execute("INSERT INTO events VALUES (NULL, NULL, NULL)")


def test_a_failed_statement_leaves_everything_as_it_was(journal: Journal, clock: Clock) -> None:
    add(journal, clock)
    with pytest.raises(sqlite3.IntegrityError):
        break_off(journal)
    assert next_id(journal)


def test_the_file_is_private(tmp_path: Path, journal: Journal) -> None:
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def _count(path: Path, times: int) -> None:
    journal = Journal(path, lambda: 0.0)
    for _ in range(times):
        journal.count("together")


def test_processes_share_it(tmp_path: Path, journal: Journal) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count, args=(tmp_path / "agent.db", 20)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert journal.counters() == {"together": 40}


def test_only_one_holds_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with only_one(lock, what="First"), pytest.raises(Busy, match="First"), only_one(lock, what="First"):
        pass
    with only_one(lock, what="First"):
        pass
