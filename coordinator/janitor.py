"""The janitor role: judges committed points, ends what got lost, finishes vaults, forgets old answers.

One transaction a step; each step may be done again after a crash. (Locks, retention, scrub and collection come with
their issue, as further loops.)
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from common.errors import QueueUnavailable, StatewardError
from common.jobstates import JobState
from common.telemetry import get_logger
from coordinator.access.answers import forget_old_answers
from coordinator.access.facts import api_alive
from coordinator.hosts.models import Host
from coordinator.jobs.models import Job, TakenEvent
from coordinator.jobs.states import HOLDING, advance
from coordinator.loops import Loop
from coordinator.points.judging import committed_jobs, judge_committed_job, point_is_there
from coordinator.queue_users import QueueUsers
from coordinator.service import Services
from coordinator.vaults.models import Vault
from coordinator.vaults.service import finish_vault, unfinished_vaults

log = get_logger(__name__)

_API_SILENT = 3
"""So many of its notes the API has missed when it counts as down: lease clocks stand still."""
_EVENTS_KEPT = timedelta(days=30)
_FORGET_S = 60.0
_REPAIR_S = 20.0


def judge_points(services: Services) -> int:
    """Judge every committed job's point; how many were. A store that is down leaves them for the next round."""
    judged = 0
    with services.db.read() as session:
        waiting = committed_jobs(session)
    for job_id in waiting:
        try:
            judged += judge_committed_job(services, job_id) is not None
        except StatewardError as error:
            log.warning("point not judged yet", job_id=job_id, code=error.code, reason=error.message)
    return judged


def end_stale_leases(services: Services) -> int:
    """Leases that were not renewed are lost (after its deadline none is renewed); how many were."""
    now = services.clock()
    ended = 0
    with services.db.write() as session:
        alive = api_alive(session)
        if alive is None or now - alive > timedelta(seconds=_API_SILENT * services.settings.alive_s):
            return 0
        limit = now - timedelta(seconds=services.settings.lost_after_s)
        holding = select(Job).where(Job.state.in_([state.value for state in HOLDING]), Job.renewed < limit)
        for job in session.scalars(holding):
            ended += 1
            if JobState(job.state) is JobState.CANCELLING:
                advance(job, JobState.CANCELLED, now=now, code="cancelled", reason="The host stopped answering.")
            else:
                advance(job, JobState.LOST, now=now)
            log.warning("lease lost", job_id=job.id, host=job.host_id, attempt=job.attempt)
    services.metrics.lost.inc(ended)
    return ended


def settle_lost_jobs(services: Services) -> int:
    """A lost job whose point is there is committed; else, once its back-off is over, it gets another attempt or has
    failed. Until then its host may come back and go on. How many were settled."""
    now = services.clock()
    with services.db.read() as session:
        rows = session.execute(
            select(Job, Vault).join(Vault, Vault.id == Job.vault_id).where(Job.state == JobState.LOST.value)
        ).all()
    settled = 0
    for job, vault in rows:
        try:
            there = job.point is not None and point_is_there(services.storage.store(vault.url), job.host_id, job.point)
        except StatewardError as error:
            log.warning("lost job not settled yet", job_id=job.id, code=error.code, reason=error.message)
            continue
        if there or now >= _back_off_ends(services, job):
            _settle(services, job.id, there=there)
            settled += 1
    return settled


def miss_late_jobs(services: Services) -> int:
    """Jobs that no host took in their start window; how many were."""
    now = services.clock()
    with services.db.write() as session:
        late = session.scalars(
            select(Job).where(Job.state == JobState.QUEUED.value, Job.attempt == 0, Job.expires < now)
        ).all()
        for job in late:
            advance(
                job,
                JobState.MISSED,
                now=now,
                code="missed",
                reason="The host did not start the job in its window.",
                next_step="Check that the host's agent runs: `stateward host show`.",
            )
            session.get_one(Host, job.host_id).last_code = "missed"
    return len(late)


def finish_vaults(services: Services) -> None:
    """Vaults whose making was interrupted."""
    with services.db.read() as session:
        unfinished = unfinished_vaults(session, before=services.clock() - timedelta(seconds=30))
    for vault_id in unfinished:
        finish_vault(services, vault_id)


def forget(services: Services) -> None:
    """Stored answers and ids of events that nobody can repeat any more."""
    now = services.clock()
    with services.db.write() as session:
        forget_old_answers(session, now=now)
        _forget_events(session, before=now - _EVENTS_KEPT)


def restore_queue_users(services: Services) -> None:
    """All hosts' users again: Redis may have started anew without them."""
    if isinstance(services.queue_users, QueueUsers):
        try:
            services.queue_users.restore_all(services.db)
        except QueueUnavailable as error:
            log.warning("queue users not restored yet", reason=error.message)


def janitor_loops(services: Services) -> tuple[Loop, ...]:
    pause = services.settings.janitor_s
    return (
        Loop("judge", lambda: judge_points(services), pause, services.points_committed),
        Loop("leases", lambda: _leases(services), pause),
        Loop("vaults", lambda: finish_vaults(services), max(pause, 5.0)),
        Loop("forget", lambda: forget(services), _FORGET_S),
        Loop("queue-users", lambda: restore_queue_users(services), _REPAIR_S),
    )


def _leases(services: Services) -> None:
    end_stale_leases(services)
    settle_lost_jobs(services)
    miss_late_jobs(services)


def _back_off_ends(services: Services, job: Job) -> datetime:
    """`retry_after_s` after the lease was lost, doubled with each attempt."""
    settings = services.settings
    wait = settings.lost_after_s + settings.retry_after_s * 2 ** max(0, job.attempt - 1)
    return (job.renewed or job.created) + timedelta(seconds=wait)


def _settle(services: Services, job_id: str, *, there: bool) -> None:
    now = services.clock()
    with services.db.write() as session:
        job = session.get_one(Job, job_id)
        if JobState(job.state) is not JobState.LOST:
            return  # the host came back meanwhile
        if there:
            advance(job, JobState.COMMITTED, now=now)
        elif job.attempt >= services.settings.max_attempts:
            advance(
                job,
                JobState.FAILED,
                now=now,
                code="lease_lost",
                reason=f"The host stopped answering in each of {job.attempt} attempts.",
                next_step="Check that the host is on and its agent runs.",
            )
            session.get_one(Host, job.host_id).last_code = "lease_lost"
        else:
            advance(job, JobState.QUEUED, now=now, code="lease_lost", reason="The host stopped answering.")
    if there:
        services.points_committed.set()


def _forget_events(session: Session, *, before: datetime) -> None:
    session.execute(delete(TakenEvent).where(TakenEvent.at < before))
