"""The table of hosts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from coordinator.db import Base, Json, UtcMoment


class HostState(StrEnum):
    INCOMPLETE = "incomplete"
    """Registered; gets no job until its key counts as saved."""
    ACTIVE = "active"
    PAUSED = "paused"
    REMOVED = "removed"


class Host(Base):
    __tablename__ = "hosts"
    __table_args__ = (Index("ix_hosts_name", "name"), Index("ix_hosts_vault", "vault_id", "state"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    vault_id: Mapped[str] = mapped_column(ForeignKey("vaults.id"))
    credentials_id: Mapped[str] = mapped_column(ForeignKey("credentials_files.id"))
    state: Mapped[str] = mapped_column(String(20))
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    labels: Mapped[dict[str, str]] = mapped_column(Json)
    region: Mapped[str] = mapped_column(String(100))
    report: Mapped[dict[str, Any]] = mapped_column(Json)
    record_key: Mapped[str] = mapped_column(String(100), default="")
    fence: Mapped[int] = mapped_column(default=0)
    enrolled: Mapped[datetime] = mapped_column(UtcMoment)
    removed: Mapped[datetime | None] = mapped_column(UtcMoment)
    last_seen: Mapped[datetime | None] = mapped_column(UtcMoment)
    last_point: Mapped[datetime | None] = mapped_column(UtcMoment)
    last_code: Mapped[str] = mapped_column(String(50), default="")
    clock_offset_s: Mapped[float] = mapped_column(default=0.0)
    agent_base: Mapped[str] = mapped_column(String(64), default="")
    agent_base_before: Mapped[str] = mapped_column(String(64), default="")
    cloned: Mapped[datetime | None] = mapped_column(UtcMoment)
    """When two agents were last seen taking turns with this host's key."""
