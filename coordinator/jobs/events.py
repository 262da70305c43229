"""Events of a check-in: each is taken in once, and moves a job only forward in (attempt, rank of its state)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from common.contracts.jobs import JobEvent, JobKind
from common.jobstates import JobState
from common.telemetry import get_logger
from coordinator.access.models import RejectedMessage
from coordinator.hosts.models import Host
from coordinator.jobs.models import Job, TakenEvent
from coordinator.jobs.states import advance

log = get_logger(__name__)

_KEPT_CHARACTERS = 500


class Rejected(Exception):
    """The event can never be taken in; the host need not send it again."""

    def __init__(self, label: str, reason: str) -> None:
        super().__init__(reason)
        self.label = label
        self.reason = reason


def take_event(session: Session, host: Host, event: JobEvent, *, now: datetime) -> bool:
    """True when it changed something; False when it was known or is behind what is known.

    Raises:
        Rejected: with the reason; a copy is kept for a look.
    """
    if session.get(TakenEvent, (event.id, host.id)) is not None:
        return False
    job = session.get(Job, event.job_id)
    if job is None or job.host_id != host.id:
        raise Rejected("unknown_job", "There is no such job of this host.")
    if event.attempt > job.attempt or event.epoch > job.epoch:
        raise Rejected("from_the_future", f"Attempt {event.attempt} of the job was never leased.")
    if event.attempt == job.attempt and event.fence != job.fence:
        raise Rejected("wrong_fence", "The event does not show the fence of its lease.")
    if event.state is JobState.COMMITTED and (job.kind != JobKind.BACKUP.value or event.point != job.point):
        raise Rejected("wrong_point", "The event names another recovery point than was allotted.")
    if event.state in {JobState.COMPLETED, JobState.COMPLETED_WITH_WARNINGS} and job.kind == JobKind.BACKUP.value:
        raise Rejected("not_the_hosts_word", "Whether a backup is complete is read back from the vault.")
    session.add(TakenEvent(id=event.id, host_id=host.id, job_id=job.id, at=now))
    return _apply(job, host, event, now)


def keep_rejected(session: Session, host: Host, event: JobEvent, rejected: Rejected, *, now: datetime) -> None:
    session.add(
        RejectedMessage(
            host_id=host.id,
            reason=rejected.label,
            detail=rejected.reason[:_KEPT_CHARACTERS],
            message={"id": event.id, "job_id": event.job_id, "attempt": event.attempt, "state": event.state.value},
            at=now,
        )
    )


def _apply(job: Job, host: Host, event: JobEvent, now: datetime) -> bool:
    state = JobState(job.state)
    late = event.attempt < job.attempt
    waits = state in {JobState.QUEUED, JobState.LOST}
    if state.ended or state is JobState.COMMITTED or (late and not (waits and event.state is JobState.COMMITTED)):
        return False
    if state is JobState.QUEUED and event.state is not JobState.COMMITTED:
        return False
    if state in {JobState.LEASED, JobState.LOST} and event.state in {
        JobState.COMPLETED,
        JobState.COMPLETED_WITH_WARNINGS,
    }:
        advance(job, JobState.RUNNING, now=now)  # it ended before its first renewal arrived
    report = event.report
    then = event.state
    if state is JobState.CANCELLING and then is JobState.FAILED:
        then = JobState.CANCELLED  # it stopped, one way or the other
    job.report = report.model_dump(mode="json")
    code = report.code or (then.value if then in {JobState.FAILED, JobState.CANCELLED} else "")
    advance(job, then, now=now, code=code, reason=report.message, next_step=report.next_step)
    if then.ended:
        host.last_code = code
    log.info("job reported", job_id=job.id, host=host.id, state=then.value, code=code)
    return True
