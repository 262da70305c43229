"""Single facts of the installation."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from coordinator.access.models import Fact

_EPOCH = "epoch"
_API_ALIVE = "api_alive"


def epoch(session: Session) -> int:
    """The first half of every fence. Raised when an old database is put back (`coordinator recover`: to come)."""
    row = session.get(Fact, _EPOCH)
    return 1 if row is None else int(row.value)


def api_alive(session: Session) -> datetime | None:
    """When an API process last said that it takes renewals."""
    row = session.get(Fact, _API_ALIVE)
    return None if row is None else datetime.fromisoformat(row.value)


def say_api_alive(session: Session, *, now: datetime) -> None:
    session.merge(Fact(name=_API_ALIVE, value=now.isoformat()))
