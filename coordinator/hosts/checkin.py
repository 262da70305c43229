"""The check-in: what a host has to say is committed first, then what waits for it is handed down."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.contracts.checkin import CheckinReply, CheckinRequest, RejectedEvent
from common.contracts.jobs import Stage
from common.jobstates import JobState
from coordinator.hosts.enrolment import take_report
from coordinator.hosts.models import Host, HostState
from coordinator.hosts.service import find_host
from coordinator.jobs.events import Rejected, keep_rejected, take_event
from coordinator.jobs.models import Job
from coordinator.service import Services

_STAGES = frozenset(stage.value for stage in Stage)
_MAX_JOBS = 20
_WITHOUT_QUEUE_S = 60.0


def check_in(services: Services, host_id: str, request: CheckinRequest) -> CheckinReply:
    """Every event is either accepted or rejected; neither need be sent again."""
    now = services.clock()
    accepted: list[str] = []
    rejected: list[RejectedEvent] = []
    committed = False
    with services.db.write() as session:
        host = find_host(session, host_id)
        if request.report is not None:
            take_report(host, request.report)
        for event in request.events:
            try:
                changed = take_event(session, host, event, now=now)
            except Rejected as reason:
                services.metrics.rejected.labels(reason.label).inc()
                keep_rejected(session, host, event, reason, now=now)
                rejected.append(RejectedEvent(id=event.id, reason=reason.reason))
                continue
            session.flush()
            services.metrics.events.inc()
            if changed:
                for stage, seconds in event.report.stage_seconds.items():
                    _observe_stage(services, session, event.job_id, stage, seconds)
            committed = committed or event.state is JobState.COMMITTED
            accepted.append(event.id)
    if committed:
        services.points_committed.set()
    with services.db.read() as session:
        jobs = _pending(services, session, host_id)
        cancels = session.scalars(
            select(Job.id).where(Job.host_id == host_id, Job.state == JobState.CANCELLING.value)
        ).all()
    checkin_s = services.settings.checkin_s
    return CheckinReply(
        accepted=tuple(accepted),
        rejected=tuple(rejected),
        jobs=jobs,
        cancels=tuple(cancels),
        next_checkin_s=checkin_s if request.queue_reachable else min(checkin_s, _WITHOUT_QUEUE_S),
        server_time=services.clock(),
    )


def _pending(services: Services, session: Session, host_id: str) -> tuple[str, ...]:
    now = services.clock()
    host = session.get_one(Host, host_id)
    if host.state != HostState.ACTIVE.value:
        return ()
    query = select(Job.message, Job.attempt, Job.expires).where(
        Job.host_id == host_id, Job.state == JobState.QUEUED.value, Job.not_before <= now
    )
    rows = session.execute(query.order_by(Job.created).limit(_MAX_JOBS))
    return tuple(message for message, attempt, expires in rows if attempt > 0 or now <= expires)


def _observe_stage(services: Services, session: Session, job_id: str, stage: str, seconds: float) -> None:
    job = session.get_one(Job, job_id)
    if stage in _STAGES and seconds >= 0:
        services.metrics.stages.labels(job.kind, stage).observe(seconds)
