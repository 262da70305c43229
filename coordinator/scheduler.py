"""The scheduler role: publishes the outbox after commit, and sweeps for what got lost.

Redis may be down, flushed or slow: nothing here is the truth. Due policies will be claimed here too (the next issue:
`FOR UPDATE SKIP LOCKED`, job and outbox row in one transaction through `coordinator.jobs.asking.write_to_outbox`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from common.jobstates import JobState
from common.telemetry import get_logger
from coordinator.celery_app import BATCH, Emission, JobQueue, make_celery
from coordinator.jobs.models import Job, OutboxMessage
from coordinator.loops import Loop
from coordinator.queue_users import publisher_password
from coordinator.service import Services

log = get_logger(__name__)

_TAKEN_WITHIN = timedelta(seconds=30)
"""A host that is there takes its lease sooner; after it the sweep looks whether the message still lies there."""


class JobQueuePort(Protocol):
    """The hosts' lists. Every call may raise QueueUnavailable; publishing twice is harmless."""

    def publish(self, emissions: Sequence[Emission]) -> None: ...

    def length(self, host_id: str) -> int: ...


def publish_outbox(services: Services, queue: JobQueuePort) -> int:
    """Publish what is not confirmed; how many were. Raises QueueUnavailable: all of it stays for the next time."""
    published = 0
    while True:
        with services.db.read() as session:
            rows = _unpublished(session)
        if not rows:
            return published
        services.db.forbid_open_transaction()
        queue.publish([emission for _, emission in rows])
        with services.db.write() as session:
            session.execute(
                update(OutboxMessage)
                .where(OutboxMessage.id.in_([row_id for row_id, _ in rows]))
                .values(published=services.clock(), times=OutboxMessage.times + 1)
            )
        published += len(rows)
        if len(rows) < BATCH:
            return published


def sweep(services: Services, queue: JobQueuePort) -> int:
    """Publish again what its host has not taken and whose list is empty; how many were.

    Also puts an end to outbox rows whose job needs no message any more.
    """
    now = services.clock()
    with services.db.write() as session:
        done = select(Job.id).where(Job.state != JobState.QUEUED.value)
        session.execute(
            update(OutboxMessage)
            .where(OutboxMessage.published.is_(None), OutboxMessage.job_id.in_(done))
            .values(published=now)
        )
    with services.db.read() as session:
        waiting = session.execute(
            select(OutboxMessage.id, OutboxMessage.host_id)
            .join(Job, Job.id == OutboxMessage.job_id)
            .where(
                Job.state == JobState.QUEUED.value,
                Job.not_before <= now,
                or_(Job.attempt > 0, Job.expires > now),
                OutboxMessage.published < now - _TAKEN_WITHIN,
            )
        ).all()
    lengths = {host_id: queue.length(host_id) for host_id in {host_id for _, host_id in waiting}}
    again = [row_id for row_id, host_id in waiting if lengths[host_id] == 0]
    if again:
        with services.db.write() as session:
            session.execute(update(OutboxMessage).where(OutboxMessage.id.in_(again)).values(published=None))
        services.outbox_written.set()
        log.info("messages published again", count=len(again))
    return len(again)


def scheduler_loops(services: Services) -> tuple[Loop, ...]:
    """The publisher and the sweep; none when there is no queue (check-ins hand the jobs out)."""
    settings = services.settings
    if not settings.queue.url:
        return ()
    password = publisher_password(settings.queue, services.keys)
    publishing, sweeping = (JobQueue(make_celery(settings.queue.url, password)) for _ in range(2))
    return (
        Loop(
            "publisher",
            lambda: publish_outbox(services, publishing),
            settings.publish_s,
            services.outbox_written,
            publishing.close,
        ),
        Loop("sweep", lambda: sweep(services, sweeping), settings.sweep_s, None, sweeping.close),
    )


def _unpublished(session: Session) -> list[tuple[int, Emission]]:
    query = (
        select(OutboxMessage.id, OutboxMessage.host_id, OutboxMessage.job_id, Job.message)
        .join(Job, Job.id == OutboxMessage.job_id)
        .where(OutboxMessage.published.is_(None), Job.state == JobState.QUEUED.value)
    )
    rows = session.execute(query.order_by(OutboxMessage.id).limit(BATCH))
    return [(row_id, Emission(host_id, job_id, message)) for row_id, host_id, job_id, message in rows]
