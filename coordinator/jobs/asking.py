"""Asking for a job: row and outbox row in one transaction, signed there; published after commit."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.contracts.jobs import JobMessage, JobSpec, RestoreSpec
from common.contracts.operator import JobCreate, JobView
from common.errors import Conflicting, PointNotFound
from common.ids import new_uuid
from common.jobstates import JobState
from common.signing import EnvelopeType, sign
from coordinator.access.credentials import ISSUER
from coordinator.hosts.models import Host, HostState
from coordinator.hosts.service import find_host
from coordinator.jobs.models import Job, OutboxMessage
from coordinator.jobs.views import job_view
from coordinator.points.models import Point
from coordinator.service import Services


def ask_for_job(services: Services, wanted: JobCreate) -> JobView:
    """A repeated idempotency key gives the job that it made.

    Raises:
        HostNotFound, PointNotFound.
        Conflicting: the host takes no jobs (incomplete, paused, removed), or the key was used for another job.
    """
    now = services.clock()
    with services.db.write() as session:
        host = find_host(session, wanted.host)
        spec = wanted.spec.model_dump(mode="json")
        if wanted.idempotency_key:
            before = session.scalar(select(Job).where(Job.idempotency_key == wanted.idempotency_key))
            if before is not None:
                if before.host_id != host.id or before.spec != spec:
                    raise Conflicting("The idempotency key was used for another job.", next_step="Use a new key.")
                return job_view(before, host)
        if host.state != HostState.ACTIVE.value:
            raise Conflicting(
                f"Host {host.name} is {host.state} and takes no jobs.",
                next_step="An incomplete host needs its key confirmed: `stateward-worker passphrase confirm`.",
            )
        if isinstance(wanted.spec, RestoreSpec):
            _check_restore(session, wanted.spec, host)
        job = Job(
            id=new_uuid(),
            kind=wanted.spec.kind.value,
            host_id=host.id,
            vault_id=host.vault_id,
            spec=spec,
            message="",
            state=JobState.QUEUED.value,
            idempotency_key=wanted.idempotency_key or None,
            retain_until=wanted.retain_until,
            created=now,
            expires=now + timedelta(seconds=services.settings.start_window_s),
            not_before=now,
        )
        write_to_outbox(services, session, job, wanted.spec, now=now)
        shown = job_view(job, host)
    services.outbox_written.set()
    return shown


def write_to_outbox(services: Services, session: Session, job: Job, spec: JobSpec, *, now: datetime) -> None:
    """Sign the job and put both rows into the caller's transaction; a scheduler does the same with its slot."""
    message = JobMessage(
        iss=ISSUER,
        aud=job.host_id,
        jti=new_uuid(),
        iat=int(now.timestamp()),
        nbf=int(now.timestamp()),
        exp=int(job.expires.timestamp()),
        job_id=job.id,
        spec=spec,
    )
    claims: dict[str, Any] = message.model_dump(mode="json")
    job.message = sign(claims, kind=EnvelopeType.JOB, key=services.keys.signing)
    session.add(job)
    session.flush()
    session.add(OutboxMessage(job_id=job.id, host_id=job.host_id, created=now))


def _check_restore(session: Session, spec: RestoreSpec, host: Host) -> None:
    point = session.get(Point, spec.point)
    if point is None or point.host_id != spec.source_host:
        raise PointNotFound(
            f"There is no recovery point {spec.point} of host {spec.source_host}.",
            next_step="List the recovery points with `stateward point list`.",
        )
    if point.vault_id != host.vault_id:
        raise Conflicting("The recovery point lies in another vault than the target host's.")
