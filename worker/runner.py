"""Runs journalled jobs, one process at a time; what was interrupted comes first, with the lease it had."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from common.contracts.jobs import JobEvent, JobReport
from common.errors import StatewardError
from common.ids import new_ulid
from common.jobstates import JobState
from common.telemetry import get_logger
from worker.jobprocess import JobProcess, Spawn
from worker.journal import Journal, JournalledJob, Phase

log = get_logger(__name__)

IDLE_S = 1.0
STOP_S = 8.0
"""A job's process that was asked to stop is given so long."""
MAX_CRASHES = 5
CRASH_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerDeps:
    journal: Journal
    spawn: Spawn
    instance: str
    said: Callable[[], None]
    """There is something to be said to the coordinator."""
    now: Callable[[], datetime]


class Runner:
    """`run` until `stop`; `arrived` when there may be a job."""

    def __init__(self, deps: RunnerDeps) -> None:
        self._deps = deps
        self._arrived = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._current: str | None = None
        self._started = 0

    def arrived(self) -> None:
        self._arrived.set()

    def stop(self) -> None:
        self._stopping.set()
        self._arrived.set()

    def running(self) -> tuple[str, ...]:
        with self._lock:
            return () if self._current is None else (self._current,)

    def run(self) -> None:
        while not self._stopping.is_set():
            self._arrived.clear()
            job = self._deps.journal.next_job()
            if job is None:
                self._arrived.wait(IDLE_S)
                continue
            self._run(job)

    def _run(self, job: JournalledJob) -> None:
        self._started += 1
        log.info("job starts", job_id=job.job_id, kind=job.kind, resumed=job.phase is Phase.RUNNING)
        try:
            process = self._deps.spawn(job.job_id, f"{self._deps.instance}/{self._started}")
        except OSError as error:
            log.exception("the job's process does not start", job_id=job.job_id)
            self._after_crash(job.job_id, f"its process does not start ({error.strerror})")
            return
        with self._lock:
            self._current = job.job_id
        try:
            code = self._watch(process)
        finally:
            with self._lock:
                self._current = None
        self._settle(job.job_id, code)

    def _watch(self, process: JobProcess) -> int | None:
        """The exit code; None when the agent stops."""
        while (code := process.wait(0.2)) is None:
            if self._stopping.is_set():
                process.stop()
                if process.wait(STOP_S) is None:
                    process.kill()
                    process.wait(STOP_S)
                return None
        process.stop()  # only the pipe is left to close
        return code

    def _settle(self, job_id: str, code: int | None) -> None:
        job = self._deps.journal.job(job_id)
        if job is None or code is None:
            return
        log.info("job's process ended", job_id=job_id, exit_code=code, phase=job.phase.value)
        if job.phase is Phase.ENDED:
            self._deps.said()
        elif code != 0 and job.phase in {Phase.WAITING, Phase.RUNNING}:
            self._after_crash(job_id, f"its process ended with {code}")

    def _after_crash(self, job_id: str, reason: str) -> None:
        """Again with the same lease, a few times: then the job has failed."""
        deps = self._deps
        crashes = deps.journal.crashed(job_id, CRASH_PAUSE_S)
        job = deps.journal.job(job_id)
        if job is None or crashes < MAX_CRASHES:
            return
        if job.lease is None:
            deps.journal.drop(job_id)  # nothing was leased, so there is nothing to report; a check-in may bring it back
            return
        report = JobReport(
            code=StatewardError.code,
            stage=job.progress.stage if job.progress else None,
            message=f"The job was started {crashes} times, and each time {reason}.",
            next_step=StatewardError.default_next_step,
        )
        deps.journal.end(
            JobEvent(
                id=new_ulid(),
                job_id=job_id,
                attempt=job.lease.attempt,
                epoch=job.lease.epoch,
                fence=job.lease.fence,
                state=JobState.FAILED,
                at=deps.now(),
                report=report,
            )
        )
        deps.said()
