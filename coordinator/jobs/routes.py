"""`/v1/jobs`: hosts lease and renew (with proofs), operators ask, look, cancel and grant (with tokens)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from common.contracts.jobs import Lease, LeaseRequest, Renewal, RenewRequest
from common.contracts.operator import GrantCreate, GrantView, JobCreate, JobPage, JobView
from common.jobstates import JobState
from coordinator.access.callers import PROBLEMS, CallingHost, Cursor, Limit, Operator, With
from coordinator.hosts.service import find_host
from coordinator.jobs import asking, leases, renewals, service, versions
from coordinator.jobs.versions import VersionsReply, VersionsRequest
from coordinator.jobs.views import job_page

JobPath = Annotated[str, Path(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]

host_side = APIRouter(prefix="/v1/jobs", tags=["hosts' side"], responses=PROBLEMS)
operator_side = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[Operator], responses=PROBLEMS)


@host_side.post("/{job}/lease")
def take_lease(job: JobPath, request: LeaseRequest, services: With, host: CallingHost) -> Lease:
    """The same request id gets the same lease."""
    return leases.take_lease(services, host, job, request)


@host_side.post("/{job}/renew")
def renew_lease(job: JobPath, request: RenewRequest, services: With, host: CallingHost) -> Renewal:
    """With stage, bytes and rate; the answer says whether to go on."""
    return renewals.renew_lease(services, host, job, request)


@host_side.post("/{job}/versions")
def list_versions(job: JobPath, request: VersionsRequest, services: With, host: CallingHost) -> VersionsReply:
    """Version ids of the host's own objects, which it may not list."""
    return versions.versions_of(services, host, job, request)


@operator_side.post("", status_code=201)
def ask_for_job(request: JobCreate, services: With) -> JobView:
    """Back up, restore or check one host now."""
    return asking.ask_for_job(services, request)


@operator_side.get("")
def list_jobs(
    services: With,
    host: str | None = None,
    state: JobState | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JobPage:
    """Newest first."""
    with services.db.read() as session:
        host_id = None if host is None else find_host(session, host).id
        return job_page(session, host=host_id, state=state, cursor=cursor, limit=limit)


@operator_side.get("/{job}")
def show_job(job: JobPath, services: With) -> JobView:
    """Whoever asks watches: the host reports every second for some seconds."""
    return service.show_job(services, job)


@operator_side.post("/{job}/cancel")
def cancel_job(job: JobPath, services: With) -> JobView:
    """May be repeated."""
    return service.cancel_job(services, job)


@operator_side.get("/{job}/grant")
def show_grant(job: JobPath, services: With) -> GrantView:
    """What a person's program needs to make the grant of a restore."""
    return service.grant_view(services, job)


@operator_side.post("/{job}/grant")
def take_grant(job: JobPath, request: GrantCreate, services: With) -> JobView:
    """The sealed grant, carried to the host unread."""
    return service.take_grant(services, job, request)
