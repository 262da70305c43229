"""Leases: who may work on a job now, with which fence, for which point, and with which storage credentials.

The same request id gets the same lease (a lost reply costs nothing); a host that restarted resumes its lease; a fence
grows with every lease of a host. Concurrency is decided here, so hosts that are off take no place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError
from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from common.contracts.jobs import (
    JobKind,
    JobMessage,
    KnownObject,
    Lease,
    LeaseRequest,
    PreviousPoint,
    RestoreSpec,
    StorageCredentials,
)
from common.errors import JobOver, LeaseLost, MessageExpired, NotTrusted, NotYet
from common.ids import new_ulid
from common.jobstates import JobState
from common.signing import EnvelopeType, open_signed
from common.telemetry import get_logger
from common.vault.location import VaultLocation
from coordinator import storage_policy
from coordinator.access.credentials import vault_access
from coordinator.access.facts import api_alive, epoch, say_api_alive
from coordinator.hosts.models import Host, HostState
from coordinator.jobs.models import Job
from coordinator.jobs.states import HOLDING, advance
from coordinator.jobs.views import find_job, spec_of
from coordinator.points.judging import adopt_existing_point
from coordinator.points.models import Point
from coordinator.service import Services
from coordinator.vaults.models import Vault

log = get_logger(__name__)

BUSY_RETRY_S = 20.0
_KNOWN_POINTS = 8
"""Whose index objects and pages a job gets as known: the newest accepted points of its host."""
_MAX_KNOWN = 2000
_API_GONE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class _Given:
    """What was decided in the transaction; the lease is made of it outside."""

    job: Job
    vault: Vault
    indexes: tuple[KnownObject, ...]
    lists: tuple[KnownObject, ...]
    pack_hosts: tuple[str, ...]


def take_lease(services: Services, host_id: str, job_id: str, request: LeaseRequest) -> Lease:
    """Give, or give again, the lease of a job.

    Raises:
        NotTrusted: the message is not a job of this coordinator for this host.
        MessageExpired: first shown after its start window.
        NotYet: the vault's concurrency is used up, the host has another backup under way, or the job must wait.
        LeaseLost, JobOver: the job is being cancelled, or is over.
        StoreUnavailable: no credentials now; asking again with the same request id goes on where this ended.
    """
    check_message(services, host_id, job_id, request.message)
    if adopt_existing_point(services, job_id):
        raise JobOver("An earlier attempt of this job has written its recovery point.")
    now = services.clock()
    with services.db.write() as session:
        job = find_job(session, job_id)
        host = session.get_one(Host, host_id)
        resumed = _decide(services, session, job, host, request.request_id, now)
        given = _gather(session, job)
    credentials = credentials_for(services, given.job, given.vault, given.pack_hosts)
    with services.db.write() as session:
        find_job(session, job_id).credentials_expire = credentials.expires
    log.info("lease given", job_id=job_id, host=host_id, attempt=given.job.attempt, resumed=resumed)
    return _lease(services, given, credentials)


def check_message(services: Services, host_id: str, job_id: str, message: str) -> JobMessage:
    """Raises NotTrusted unless it is our message, of this job, for this host."""
    try:
        claims = open_signed(message, kind=EnvelopeType.JOB, keys=services.keys.trusted)
        job = JobMessage.model_validate(claims)
    except ValidationError as error:
        raise NotTrusted("The signed job does not have the agreed form.") from error
    if job.aud != host_id or job.job_id != job_id:
        raise NotTrusted("The signed job is another host's or another job.")
    return job


def credentials_for(services: Services, job: Job, vault: Vault, pack_hosts: tuple[str, ...]) -> StorageCredentials:
    """Of this job alone, at most an hour long. Raises StoreUnavailable, StoreDenied."""
    location = VaultLocation.parse(vault.url)
    spec = spec_of(job)
    if isinstance(spec, RestoreSpec):
        policy = storage_policy.restore_policy(
            bucket=location.bucket,
            prefix=location.prefix,
            source_host=spec.source_host,
            point=spec.point,
            pack_hosts=pack_hosts,
        )
    elif job.kind == JobKind.BACKUP.value and job.point:
        policy = storage_policy.backup_policy(
            bucket=location.bucket, prefix=location.prefix, host=job.host_id, point=job.point
        )
    else:
        policy = storage_policy.check_policy(bucket=location.bucket, prefix=location.prefix, host=job.host_id)
    return services.storage.session(policy=policy, name=f"job-{job.id}")


def pack_hosts_of(session: Session, job: Job) -> tuple[str, ...]:
    """Whose packs a restore reads."""
    spec = spec_of(job)
    if not isinstance(spec, RestoreSpec):
        return ()
    point = session.get(Point, spec.point)
    return () if point is None else tuple(point.pack_hosts)


def restart_lease_clocks(services: Services) -> None:
    """At the start of an API: while none was up nobody could renew, so all open leases count from now."""
    now = services.clock()
    with services.db.write() as session:
        alive = api_alive(session)
        if alive is None or now - alive > _API_GONE:
            holding = [state.value for state in HOLDING]
            session.execute(update(Job).where(Job.state.in_(holding)).values(renewed=now))
        say_api_alive(session, now=now)


def _decide(services: Services, session: Session, job: Job, host: Host, request_id: str, now: datetime) -> bool:
    """Walk the job to `leased`, or find its lease; True when it was there. Raises as `take_lease`."""
    if job.host_id != host.id or host.state == HostState.REMOVED.value:
        raise NotTrusted("The job is not this host's.")
    state = JobState(job.state)
    if state in {JobState.LEASED, JobState.RUNNING}:
        job.request_id, job.renewed = request_id, now
        return True
    if state is JobState.LOST:
        advance(job, JobState.RUNNING, now=now)
        job.request_id, job.renewed = request_id, now
        return True
    if state is JobState.CANCELLING:
        raise LeaseLost("The job is being cancelled.", next_step="Report it as cancelled.")
    if state is not JobState.QUEUED:
        raise JobOver(f"The job is {state.value}.")
    _may_start(services, session, job, now)
    _start(services, session, job, host, request_id, now)
    return False


def _may_start(services: Services, session: Session, job: Job, now: datetime) -> None:
    if job.attempt == 0 and now > job.expires:
        raise MessageExpired("The start window of the job is over.")
    if now < job.not_before:
        raise NotYet(
            "The job waits before its next attempt.", retry_after_s=max(1.0, (job.not_before - now).total_seconds())
        )
    if job.kind != JobKind.BACKUP.value:
        return
    holding = [state.value for state in HOLDING]
    busy = [*holding, JobState.LOST.value, JobState.COMMITTED.value]
    backups = select(func.count()).select_from(Job).where(Job.kind == job.kind, Job.id != job.id)
    if session.scalar(backups.where(Job.host_id == job.host_id, Job.state.in_(busy))):
        raise NotYet("Another backup of this host is not over yet.", retry_after_s=BUSY_RETRY_S / 4)
    vault = session.get_one(Vault, job.vault_id)
    limit = vault.max_concurrent_jobs or services.settings.max_concurrent_jobs
    running = session.scalar(backups.where(Job.vault_id == job.vault_id, Job.state.in_(holding))) or 0
    if running >= limit:
        raise NotYet(f"{running} backups of this vault are running, which is its limit.", retry_after_s=BUSY_RETRY_S)


def _start(services: Services, session: Session, job: Job, host: Host, request_id: str, now: datetime) -> None:
    if job.attempt == 0:
        services.metrics.queue_delay.observe((now - job.created).total_seconds())
    advance(job, JobState.LEASED, now=now)
    host.fence += 1
    job.attempt += 1
    job.epoch, job.fence = epoch(session), host.fence
    job.request_id, job.leased, job.renewed = request_id, now, now
    job.started = job.started or now
    job.deadline = now + timedelta(seconds=services.settings.job_time_limit_s)
    if job.kind == JobKind.BACKUP.value:
        newest = session.scalar(_accepted(host.id).limit(1))
        job.point = job.point or new_ulid()
        job.seq = (newest.seq if newest else 0) + 1
        job.prev_point, job.prev_sha256 = (newest.id, newest.sha256) if newest else (None, None)


def _accepted(host_id: str) -> Select[Point]:
    return select(Point).where(Point.host_id == host_id, Point.verdict == "received").order_by(Point.seq.desc())


def _gather(session: Session, job: Job) -> _Given:
    indexes: dict[str, KnownObject] = {}
    lists: dict[str, KnownObject] = {}
    if job.kind == JobKind.BACKUP.value:
        for point in session.scalars(_accepted(job.host_id).limit(_KNOWN_POINTS)):
            for known, into in ((point.indexes, indexes), (point.lists, lists)):
                for each in known[: _MAX_KNOWN - len(into)]:
                    into.setdefault(each["key"], KnownObject.model_validate(each))
    vault = session.get_one(Vault, job.vault_id)
    return _Given(job, vault, tuple(indexes.values()), tuple(lists.values()), pack_hosts_of(session, job))


def _lease(services: Services, given: _Given, credentials: StorageCredentials) -> Lease:
    job, vault = given.job, given.vault
    prev = None
    if job.prev_point and job.prev_sha256:
        prev = PreviousPoint(point=job.prev_point, sha256=job.prev_sha256)
    now = services.clock()
    return Lease(
        job_id=job.id,
        spec=spec_of(job),
        attempt=job.attempt,
        epoch=job.epoch,
        fence=job.fence,
        point=job.point,
        seq=job.seq,
        prev=prev,
        vault=vault_access(vault),
        credentials=credentials,
        indexes=given.indexes,
        lists=given.lists,
        config=_config(vault),
        deadline=job.deadline or now,
        renew_every_s=services.settings.renew_every_s,
        server_time=now,
    )


def _config(vault: Vault) -> KnownObject | None:
    if vault.config_object is None:
        return None
    return KnownObject(key=vault.config_key, sha256=hashlib.sha256(vault.config_object).hexdigest())
