"""One job in its own process, from the lease to the spooled result. Started by the agent, any number of times.

Killed at any instruction, the next start resumes: the lease's request id is in the journal before the lease is asked
for, the lease before anything is done with it, and the result before the job counts as ended. What was uploaded is used
again. The process never talks to the queue, and its result leaves with the agent's next check-in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from common.contracts.jobs import (
    BackupSpec,
    CheckSpec,
    JobEvent,
    JobMessage,
    JobReport,
    Lease,
    LeaseRequest,
    Progress,
    RestoreSpec,
    Stage,
)
from common.errors import (
    Busy,
    Cancelled,
    Damaged,
    LeaseLost,
    NotTrusted,
    NotYet,
    StatewardError,
    StoreDenied,
    Unreachable,
    is_retryable,
)
from common.ids import new_ulid
from common.jobstates import JobState
from common.signing import EnvelopeType, open_signed
from common.telemetry import get_logger
from worker.client import CoordinatorClient, Patience
from worker.identity import Identity
from worker.journal import Journal, JournalledJob, Phase
from worker.restorejob import accept, await_grant
from worker.settings import RestoreSettings
from worker.tether import Ending, Tether

log = get_logger(__name__)

LEASE_PATIENCE = Patience(tries=4)
LATER_S = 15.0
FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 60.0


class Works(Protocol):
    """The work itself; each raises the errors of `common.errors`, Cancelled when `tether.cancelled()` said so."""

    def backup(self, lease: Lease, spec: BackupSpec, tether: Tether) -> JobReport:
        """Returns when the lease's point is written; run again after that, it writes nothing and says the same."""

    def restore(
        self, lease: Lease, spec: RestoreSpec, *, root: bytes, destination: Path, tether: Tether
    ) -> JobReport: ...

    def check(self, lease: Lease, spec: CheckSpec, tether: Tether) -> JobReport: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDeps:
    identity: Identity
    journal: Journal
    client: CoordinatorClient
    works: Works
    rules: RestoreSettings
    scratch: Path
    stopping: threading.Event
    """Set when the agent stops or is gone: leave the job resumable, within seconds."""
    now: Callable[[], datetime]
    monotonic: Callable[[], float]


def run_job(job_id: str, deps: JobDeps) -> None:
    """Do what is left to be done of a journalled job; afterwards it has ended, was dropped, waits, or is resumable."""
    job = deps.journal.job(job_id)
    if job is None or job.phase not in {Phase.WAITING, Phase.RUNNING}:
        return
    lease = job.lease or _take_lease(job, deps)
    if lease is None:
        return
    started = deps.monotonic()
    with _tether(lease, deps) as tether:
        try:
            report = _work(lease, tether, deps)
            state = _state_of(lease, report)
        except StatewardError as error:
            ending = tether.ending
            if isinstance(error, LeaseLost) or ending is Ending.LOST:
                log.warning("the attempt is dropped", job_id=job_id, attempt=lease.attempt, reason=error.message)
                deps.journal.drop(job_id)
                return
            if isinstance(error, Cancelled) and ending is Ending.STOPPED:
                log.info("the job stops and will be resumed", job_id=job_id)
                return
            state = JobState.CANCELLED if isinstance(error, Cancelled) else JobState.FAILED
            report = _failure(error, tether.stage, deps.monotonic() - started)
        except Exception as error:
            log.exception("the job broke", job_id=job_id)
            state = JobState.FAILED
            bug = StatewardError(f"Unexpected error: {type(error).__name__}.")
            report = _failure(bug, tether.stage, deps.monotonic() - started)
    _end(lease, state, report, deps)


def _take_lease(job: JournalledJob, deps: JobDeps) -> Lease | None:
    """The lease, journalled; None when there is none now (postponed) or none any more (dropped)."""
    if job.cancel:
        deps.journal.drop(job.job_id)
        return None
    request = LeaseRequest(request_id=job.request_id, message=job.message)
    try:
        lease = deps.client.lease(job.job_id, request, LEASE_PATIENCE)
        _check_lease(lease, job, deps.identity)
    except NotYet as error:
        deps.journal.postpone(job.job_id, error.retry_after_s)
        return None
    except (Unreachable, Busy) as error:
        log.info("no lease at present", job_id=job.job_id, reason=error.message)
        deps.journal.postpone(job.job_id, LATER_S)
        return None
    except StatewardError as error:
        log.warning("no lease", job_id=job.job_id, code=error.code, reason=error.message)
        deps.journal.count(f"lease_refused_{error.code}")
        deps.journal.drop(job.job_id)
        return None
    deps.journal.start(job.job_id, lease)
    return lease


def _check_lease(lease: Lease, job: JournalledJob, identity: Identity) -> None:
    """Raises NotTrusted unless the lease is for exactly what the signed message asks, in the vault of the enrolment."""
    signed = open_signed(job.message, kind=EnvelopeType.JOB, keys=identity.trusted_keys())
    try:
        spec = JobMessage.model_validate(signed).spec
    except ValidationError as error:
        raise NotTrusted("The journalled message is not a job.") from error
    if (lease.job_id, lease.spec, lease.vault.vault_id) != (job.job_id, spec, identity.vault.vault_id):
        raise NotTrusted(f"The lease of job {job.job_id} is not for what its signed message asks.")


def _tether(lease: Lease, deps: JobDeps) -> Tether:
    return Tether(
        client=deps.client,
        journal=deps.journal,
        lease=lease,
        stopping=deps.stopping,
        monotonic=deps.monotonic,
        now=deps.now,
    )


def _work(lease: Lease, tether: Tether, deps: JobDeps) -> JobReport:
    """Do it, and again after what may pass by itself until the lease's deadline: a store that is down, or credentials
    that ran out while the coordinator could not be reached for fresh ones.

    Raises:
        StatewardError: what ended it.
    """
    pause = FIRST_PAUSE_S
    while True:
        try:
            return _once(lease, tether, deps)
        except (Unreachable, Busy, StoreDenied) as error:
            outlived = isinstance(error, StoreDenied) and deps.now() >= tether.credentials().expires
            if not (is_retryable(error) or outlived) or tether.cancelled() or deps.now() >= lease.deadline:
                raise
            log.warning("the job waits", job_id=lease.job_id, code=error.code, reason=error.message, again_in_s=pause)
            tether.progress(Progress(stage=tether.stage, detail=error.message[:500]))
            _wait(pause, tether, deps)
            pause = min(pause * 2, MAX_PAUSE_S)


def _once(lease: Lease, tether: Tether, deps: JobDeps) -> JobReport:
    spec = lease.spec
    if isinstance(spec, BackupSpec):
        return deps.works.backup(lease, spec, tether)
    if isinstance(spec, CheckSpec):
        return deps.works.check(lease, spec, tether)
    destination = accept(
        spec, job_id=lease.job_id, host_id=deps.identity.host_id, rules=deps.rules, scratch=deps.scratch
    )
    root = await_grant(
        lease,
        spec,
        identity=deps.identity,
        rules=deps.rules,
        journal=deps.journal,
        tether=tether,
        sleep=deps.stopping.wait,
    )
    tether.progress(Progress(stage=Stage.RESTORING))
    return deps.works.restore(lease, spec, root=root, destination=destination, tether=tether)


def _wait(pause_s: float, tether: Tether, deps: JobDeps) -> None:
    until = deps.monotonic() + pause_s
    while deps.monotonic() < until:
        if tether.cancelled():
            raise Cancelled("The job was cancelled while it waited.")
        deps.stopping.wait(0.2)


def _state_of(lease: Lease, report: JobReport) -> JobState:
    """A backup is committed, and the coordinator says what it came to; the rest ends with the host's word."""
    if isinstance(lease.spec, BackupSpec):
        return JobState.COMMITTED
    if report.failed_count or report.code:
        return JobState.FAILED
    if report.warnings_count or any(check.outcome == "warn" for check in report.checks):
        return JobState.COMPLETED_WITH_WARNINGS
    return JobState.COMPLETED


def _failure(error: StatewardError, stage: Stage, seconds: float) -> JobReport:
    return JobReport(
        code=error.code,
        stage=stage,
        message=error.message[:4000],
        next_step=error.next_step[:4000],
        seconds=seconds,
    )


def _end(lease: Lease, state: JobState, report: JobReport, deps: JobDeps) -> None:
    if report.failed_count and not report.code:
        report = report.model_copy(update={"code": Damaged.code, "next_step": Damaged.default_next_step})
    deps.journal.end(
        JobEvent(
            id=new_ulid(),
            job_id=lease.job_id,
            attempt=lease.attempt,
            epoch=lease.epoch,
            fence=lease.fence,
            state=state,
            at=deps.now(),
            report=report,
            point=lease.point if state is JobState.COMMITTED else None,
        )
    )
    log.info("the job has ended", job_id=lease.job_id, state=state.value, code=report.code)
