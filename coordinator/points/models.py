"""The catalogue of recovery points: what their heads say, and the verdict."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from coordinator.db import Base, Json, UtcMoment


class Point(Base):
    __tablename__ = "points"
    __table_args__ = (
        Index("ix_points_host", "host_id", "seq"),
        Index("ix_points_vault", "vault_id"),
        Index("ix_points_received", "received", "id"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    host_id: Mapped[str] = mapped_column(ForeignKey("hosts.id"))
    vault_id: Mapped[str] = mapped_column(ForeignKey("vaults.id"))
    job_id: Mapped[str | None] = mapped_column(String(36))
    seq: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    object_key: Mapped[str] = mapped_column(String(200))
    verdict: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(String(500), default="")
    created: Mapped[datetime] = mapped_column(UtcMoment)
    received: Mapped[datetime] = mapped_column(UtcMoment)
    logical_bytes: Mapped[int] = mapped_column(BigInteger)
    new_bytes: Mapped[int] = mapped_column(BigInteger)
    stored_bytes: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[int] = mapped_column(BigInteger)
    warnings: Mapped[int]
    consistency: Mapped[str] = mapped_column(String(200))
    indexes: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    """`key` and `sha256` of the index objects that cover its packs: known to the host's next job."""
    lists: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    pack_hosts: Mapped[list[str]] = mapped_column(Json)
    """Hosts whose packs it names: a restore may read those."""
