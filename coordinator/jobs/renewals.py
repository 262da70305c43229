"""Renewals: the host says what it is doing; the answer says whether to go on, and brings what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from common.contracts.jobs import Renewal, RenewRequest, RestoreKey
from common.errors import LeaseLost, NotTrusted, RequestInvalid
from common.jobstates import JobState
from common.signing import b64, load_public_key, unb64
from common.vault.grant import check_restore_key
from coordinator.hosts.models import Host, HostState
from coordinator.jobs.leases import credentials_for, pack_hosts_of
from coordinator.jobs.models import Job
from coordinator.jobs.states import advance
from coordinator.jobs.views import find_job
from coordinator.service import Services
from coordinator.vaults.models import Vault


@dataclass(frozen=True, slots=True)
class _Renewed:
    job: Job
    vault: Vault
    pack_hosts: tuple[str, ...]
    cancel: bool


def renew_lease(services: Services, host_id: str, job_id: str, request: RenewRequest) -> Renewal:
    """May be repeated. A lost lease comes back to life by it, as long as nobody else got the job.

    Raises:
        LeaseLost: this lease's right to commit is over.
    """
    now = services.clock()
    with services.db.write() as session:
        job = find_job(session, job_id)
        cancel = _renew(session, job, host_id, request, now)
        renewed = _Renewed(job, session.get_one(Vault, job.vault_id), pack_hosts_of(session, job), cancel)
    credentials = None
    if not cancel and _credentials_are_due(services, renewed.job, now):
        credentials = credentials_for(services, renewed.job, renewed.vault, renewed.pack_hosts)
        with services.db.write() as session:
            find_job(session, job_id).credentials_expire = credentials.expires
    return Renewal(
        cancel=cancel,
        watched=renewed.job.watched_until is not None and renewed.job.watched_until > now,
        credentials=credentials,
        grant=None if renewed.job.grant is None or cancel else b64(renewed.job.grant),
        server_time=services.clock(),
    )


def _renew(session: Session, job: Job, host_id: str, request: RenewRequest, now: datetime) -> bool:
    """Take the report in; whether the host is to stop."""
    host = session.get_one(Host, host_id)
    if job.host_id != host_id or host.state == HostState.REMOVED.value:
        raise NotTrusted("The job is not this host's.")
    state = JobState(job.state)
    if (request.epoch, request.fence) != (job.epoch, job.fence) or state.ended or state is JobState.QUEUED:
        raise LeaseLost(f"The lease is over: the job is {state.value}.")
    if job.deadline is not None and now > job.deadline:
        raise LeaseLost("The lease has reached its time limit.")
    if request.restore_key is not None and job.restore_key is None:
        _take_restore_key(job, host, request.restore_key)
    job.renewed = now
    job.progress = request.progress.model_dump(mode="json")
    if state in {JobState.LEASED, JobState.LOST}:
        advance(job, JobState.RUNNING, now=now)
    return state is JobState.CANCELLING


def _take_restore_key(job: Job, host: Host, key: RestoreKey) -> None:
    try:
        public, signature = unb64(key.public_key), unb64(key.signature)
    except ValueError as error:
        raise RequestInvalid("Field restore_key is not base64.") from error
    check_restore_key(public, signature, job_id=job.id, host=load_public_key(host.public_key))
    job.restore_key, job.restore_signature = public, signature


def _credentials_are_due(services: Services, job: Job, now: datetime) -> bool:
    """Within the last third of their life."""
    if job.credentials_expire is None:
        return True
    return job.credentials_expire - now < timedelta(seconds=services.settings.storage.session_s / 3)
