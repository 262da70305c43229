"""`/v1` of hosts: what they call themselves (with proofs), and what operators see of them (with tokens)."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select

from common.contracts.checkin import CheckinReply, CheckinRequest
from common.contracts.enrolment import EnrolReply, EnrolRequest, KeysReply, KeysRequest
from common.contracts.operator import HostPage, HostView
from common.contracts.queue import CHECKIN_PATH, ENROL_KEYS_PATH, ENROL_PATH
from coordinator.access.callers import PROBLEMS, CallingHost, Cursor, Limit, Operator, With
from coordinator.hosts import checkin, enrolment, service
from coordinator.hosts.models import Host, HostState

host_side = APIRouter(tags=["hosts' side"], responses=PROBLEMS)
operator_side = APIRouter(prefix="/v1/hosts", tags=["hosts"], dependencies=[Operator], responses=PROBLEMS)


@host_side.post(ENROL_PATH)
def enrol(request: EnrolRequest, services: With, _host: CallingHost) -> EnrolReply:
    """Register with a vault credentials file."""
    return enrolment.enrol(services, request)


@host_side.post(ENROL_KEYS_PATH)
def enrol_keys(request: KeysRequest, services: With, host: CallingHost) -> KeysReply:
    """Store the host's record and wrapping in the vault."""
    return enrolment.take_keys(services, host, request)


@host_side.post(CHECKIN_PATH)
def check_in(request: CheckinRequest, services: With, host: CallingHost) -> CheckinReply:
    """Results go up; jobs and cancels come down."""
    return checkin.check_in(services, host, request)


@operator_side.get("")
def list_hosts(services: With, limit: Limit = 100, cursor: Cursor = None, *, removed: bool = False) -> HostPage:
    """Hosts by id."""
    query = select(Host).order_by(Host.id).limit(limit + 1)
    if not removed:
        query = query.where(Host.state != HostState.REMOVED.value)
    if cursor is not None:
        query = query.where(Host.id > cursor)
    with services.db.read() as session:
        rows = session.scalars(query).all()
    more = rows[limit - 1].id if len(rows) > limit else None
    return HostPage(items=tuple(service.view(host) for host in rows[:limit]), next_cursor=more)


@operator_side.get("/{host}")
def show_host(host: str, services: With) -> HostView:
    """By id or name."""
    with services.db.read() as session:
        return service.view(service.find_host(session, host))


@operator_side.delete("/{host}")
def remove_host(host: str, services: With) -> HostView:
    """Ends the host's queue and API access now, its storage within the hour. Its points stay."""
    return service.remove_host(services, host)
