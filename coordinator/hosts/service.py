"""Hosts: looked up, shown, removed."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.contracts.operator import HostView
from common.errors import Conflicting, HostNotFound, QueueUnavailable
from common.ids import is_uuid
from common.jobstates import JobState
from common.telemetry import get_logger
from coordinator.hosts.models import Host, HostState
from coordinator.jobs.models import Job
from coordinator.jobs.states import advance
from coordinator.service import Services

log = get_logger(__name__)


def find_host(session: Session, name_or_id: str) -> Host:
    """Removed hosts are found by id alone. Raises HostNotFound, and Conflicting for a name that two hosts share."""
    if is_uuid(name_or_id):
        host = session.get(Host, name_or_id)
        if host is None:
            raise HostNotFound(f"There is no host {name_or_id}.")
        return host
    query = select(Host).where(Host.name == name_or_id, Host.state != HostState.REMOVED.value).limit(2)
    found = list(session.scalars(query))
    if not found:
        raise HostNotFound(f"There is no host of the name {name_or_id}.")
    if len(found) > 1:
        raise Conflicting(f"Several hosts have the name {name_or_id}.", next_step="Name the host by its id.")
    return found[0]


def remove_host(services: Services, name_or_id: str) -> HostView:
    """Queue and API end now, storage when the last credentials do (within the hour). The points stay.

    May be repeated; a queue that is down loses the user when it starts again, since that is made from SQL.
    """
    now = services.clock()
    with services.db.write() as session:
        host = find_host(session, name_or_id)
        if host.state != HostState.REMOVED.value:
            host.state, host.removed = HostState.REMOVED.value, now
        for job in session.scalars(select(Job).where(Job.host_id == host.id)):
            state = JobState(job.state)
            if state in {JobState.QUEUED, JobState.LEASED, JobState.RUNNING, JobState.CANCELLING, JobState.LOST}:
                advance(job, JobState.CANCELLED, now=now, code="cancelled", reason="The host was removed.")
    if services.queue_users is not None:
        try:
            services.queue_users.remove(host.id)
        except QueueUnavailable as error:
            log.warning("queue user not removed yet", host=host.id, reason=error.message)
    return view(host)


def view(host: Host) -> HostView:
    report = host.report
    return HostView(
        id=host.id,
        name=host.name,
        vault_id=host.vault_id,
        state=host.state,
        labels=host.labels,
        region=host.region,
        os=" ".join(part for part in (report.get("os_name", ""), report.get("os_version", "")) if part),
        agent_version=str(report.get("agent_version", "")),
        last_seen=host.last_seen,
        last_point=host.last_point,
        last_result=host.last_code,
    )
