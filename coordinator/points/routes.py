"""`/v1/points`, for operators."""

from __future__ import annotations

from fastapi import APIRouter

from common.contracts.operator import PointPage, PointView
from coordinator.access.callers import PROBLEMS, Cursor, Limit, Operator, With
from coordinator.hosts.service import find_host
from coordinator.points import service

router = APIRouter(prefix="/v1/points", tags=["points"], dependencies=[Operator], responses=PROBLEMS)


@router.get("")
def list_points(services: With, host: str | None = None, limit: Limit = 50, cursor: Cursor = None) -> PointPage:
    """Newest first."""
    with services.db.read() as session:
        host_id = None if host is None else find_host(session, host).id
        return service.point_page(session, host=host_id, cursor=cursor, limit=limit)


@router.get("/{point}")
def show_point(point: str, services: With) -> PointView:
    """By id."""
    with services.db.read() as session:
        return service.show_point(session, point)
