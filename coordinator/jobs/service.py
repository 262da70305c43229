"""What operators do to jobs: look, cancel, grant."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from common.contracts.jobs import RestoreSpec
from common.contracts.operator import GrantCreate, GrantView, JobView
from common.errors import JobOver, PointNotFound, RequestInvalid
from common.jobstates import JobState
from common.signing import b64, unb64
from common.telemetry import get_logger
from common.vault import names
from common.vault.reading import LARGEST_OBJECT
from common.vault.store import ObjectMissing, Store
from coordinator.hosts.models import Host
from coordinator.jobs.models import Job
from coordinator.jobs.states import advance
from coordinator.jobs.views import find_job, job_view, spec_of
from coordinator.service import Services
from coordinator.vaults.models import Vault

log = get_logger(__name__)

_WATCHED = timedelta(seconds=6)
_WATCHED_ANEW = timedelta(seconds=3)
_MAX_OBJECTS = 50


def show_job(services: Services, job_id: str) -> JobView:
    """Whoever asks watches: the host renews every second for the next few."""
    now = services.clock()
    with services.db.read() as session:
        job = find_job(session, job_id)
        shown = job_view(job, session.get_one(Host, job.host_id))
    stale = job.watched_until is None or job.watched_until - now < _WATCHED - _WATCHED_ANEW
    if not shown.state.ended and stale:
        with services.db.write() as session:
            find_job(session, job_id).watched_until = now + _WATCHED
    return shown


def cancel_job(services: Services, job_id: str) -> JobView:
    """At once when no host holds it; else the host is told with its next renewal. May be repeated.

    Raises JobOver when it is committed or ended otherwise.
    """
    now = services.clock()
    with services.db.write() as session:
        job = find_job(session, job_id)
        state = JobState(job.state)
        if state in {JobState.QUEUED, JobState.LOST}:
            advance(job, JobState.CANCELLED, now=now, code="cancelled", reason="An operator cancelled the job.")
        elif state in {JobState.LEASED, JobState.RUNNING}:
            advance(job, JobState.CANCELLING, now=now)
        elif state not in {JobState.CANCELLING, JobState.CANCELLED}:
            raise JobOver(f"The job is {state.value} and cannot be cancelled.")
        shown = job_view(job, session.get_one(Host, job.host_id))
    log.info("job cancelled", job_id=job_id, state=shown.state.value)
    return shown


def grant_view(services: Services, job_id: str) -> GrantView:
    """What a person's program needs to make the grant; it checks all of it, since this coordinator may lie.

    Raises:
        JobNotFound; RequestInvalid: not a restore; PointNotFound: the vault does not hold the point.
    """
    with services.db.read() as session:
        job, spec = _restore(session, job_id)
        vault = session.get_one(Vault, job.vault_id)
        target = session.get_one(Host, job.host_id)
    store = services.storage.store(vault.url)
    try:
        point_object = store.get(names.point(spec.source_host, spec.point), length=LARGEST_OBJECT)
    except ObjectMissing as error:
        raise PointNotFound(f"The vault does not hold the recovery point {spec.point}.") from error
    return GrantView(
        job_id=job.id,
        state=JobState(job.state),
        target_host=target.id,
        target_host_key=b64(target.public_key),
        source_host=spec.source_host,
        point=spec.point,
        destination=spec.destination,
        conflict=spec.conflict.value,
        vault_id=vault.id,
        public_key=None if job.restore_key is None else b64(job.restore_key),
        signature=None if job.restore_signature is None else b64(job.restore_signature),
        point_object=b64(point_object),
        wrappings=_objects(store, f"keys/{spec.source_host}/"),
        host_objects=_objects(store, f"hosts/{spec.source_host}/"),
    )


def take_grant(services: Services, job_id: str, wanted: GrantCreate) -> JobView:
    """Carried to the host with its next renewal, unread. The first one stays.

    Raises:
        JobOver: the job waits for no grant.
    """
    try:
        grant = unb64(wanted.grant)
    except ValueError as error:
        raise RequestInvalid("Field grant is not base64.") from error
    with services.db.write() as session:
        job, _ = _restore(session, job_id)
        state = JobState(job.state)
        if job.grant is not None and job.grant != grant:
            raise JobOver("The job has its grant already.")
        if state not in {JobState.LEASED, JobState.RUNNING, JobState.LOST} or job.restore_key is None:
            raise JobOver(f"The job is {state.value} and waits for no grant.")
        job.grant = grant
        return job_view(job, session.get_one(Host, job.host_id))


def _restore(session: Session, job_id: str) -> tuple[Job, RestoreSpec]:
    job = find_job(session, job_id)
    spec = spec_of(job)
    if not isinstance(spec, RestoreSpec):
        raise RequestInvalid(f"Job {job_id} is no restore: it needs no grant.")
    return job, spec


def _objects(store: Store, prefix: str) -> dict[str, str]:
    """The newest ones."""
    keys = [info.key for info in store.list(prefix, hidden=True)][-_MAX_OBJECTS:]
    return {key: b64(store.get(key, length=LARGEST_OBJECT)) for key in keys}
