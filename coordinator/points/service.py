"""The catalogue: recovery points, listed and shown."""

from __future__ import annotations

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from common.contracts.operator import PointPage, PointView
from common.errors import PointNotFound
from coordinator.hosts.models import Host
from coordinator.jobs.views import make_cursor, read_cursor
from coordinator.points.models import Point


def show_point(session: Session, point_id: str) -> PointView:
    row = session.get(Point, point_id)
    if row is None:
        raise PointNotFound(
            f"There is no recovery point {point_id}.", next_step="List the recovery points with `stateward point list`."
        )
    return view(row, session.get_one(Host, row.host_id))


def point_page(session: Session, *, host: str | None, cursor: str | None, limit: int) -> PointPage:
    """Newest first."""
    query = select(Point, Host).join(Host, Host.id == Point.host_id)
    if host is not None:
        query = query.where(Point.host_id == host)
    if cursor:
        received, last = read_cursor(cursor)
        query = query.where(or_(Point.received < received, and_(Point.received == received, Point.id < last)))
    rows = session.execute(query.order_by(Point.received.desc(), Point.id.desc()).limit(limit + 1)).all()
    more = make_cursor(rows[limit - 1][0].received, rows[limit - 1][0].id) if len(rows) > limit else None
    return PointPage(items=tuple(view(point, of) for point, of in rows[:limit]), next_cursor=more)


def view(point: Point, host: Host) -> PointView:
    return PointView(
        point=point.id,
        host_id=point.host_id,
        host_name=host.name,
        vault_id=point.vault_id,
        seq=point.seq,
        created=point.created,
        received=point.received,
        verdict=point.verdict,
        logical_bytes=point.logical_bytes,
        new_bytes=point.new_bytes,
        stored_bytes=point.stored_bytes,
        files=point.files,
        warnings=point.warnings,
        consistency=point.consistency,
    )
