"""Tables of jobs: the job, its outbox row, and the events that were taken in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from coordinator.db import Base, Json, UtcMoment


class Job(Base):
    """`state` is set by `coordinator.jobs.states.advance` alone."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_host", "host_id", "state"),
        Index("ix_jobs_vault", "vault_id", "state"),
        Index("ix_jobs_state", "state", "renewed"),
        Index("ix_jobs_created", "created", "id"),
        UniqueConstraint("idempotency_key", name="uq_jobs_idempotency"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    host_id: Mapped[str] = mapped_column(ForeignKey("hosts.id"))
    vault_id: Mapped[str] = mapped_column(ForeignKey("vaults.id"))
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    message: Mapped[str] = mapped_column(Text)
    """The signed job: signed where the outbox is written."""
    state: Mapped[str] = mapped_column(String(30))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    retain_until: Mapped[datetime | None] = mapped_column(UtcMoment)
    created: Mapped[datetime] = mapped_column(UtcMoment)
    expires: Mapped[datetime] = mapped_column(UtcMoment)
    """The first lease is refused after it."""
    not_before: Mapped[datetime] = mapped_column(UtcMoment)
    started: Mapped[datetime | None] = mapped_column(UtcMoment)
    ended: Mapped[datetime | None] = mapped_column(UtcMoment)

    attempt: Mapped[int] = mapped_column(default=0)
    epoch: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    request_id: Mapped[str] = mapped_column(String(36), default="")
    leased: Mapped[datetime | None] = mapped_column(UtcMoment)
    renewed: Mapped[datetime | None] = mapped_column(UtcMoment)
    deadline: Mapped[datetime | None] = mapped_column(UtcMoment)
    credentials_expire: Mapped[datetime | None] = mapped_column(UtcMoment)
    watched_until: Mapped[datetime | None] = mapped_column(UtcMoment)

    point: Mapped[str | None] = mapped_column(String(26))
    seq: Mapped[int] = mapped_column(default=0)
    prev_point: Mapped[str | None] = mapped_column(String(26))
    prev_sha256: Mapped[str | None] = mapped_column(String(64))

    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    report: Mapped[dict[str, Any] | None] = mapped_column(Json)
    code: Mapped[str] = mapped_column(String(50), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    next_step: Mapped[str] = mapped_column(Text, default="")

    restore_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    restore_signature: Mapped[bytes | None] = mapped_column(LargeBinary)
    grant: Mapped[bytes | None] = mapped_column("grant_sealed", LargeBinary)


class OutboxMessage(Base):
    """Written with its job in one transaction; published after commit; swept when not confirmed or not taken."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_published", "published", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    host_id: Mapped[str] = mapped_column(String(36))
    created: Mapped[datetime] = mapped_column(UtcMoment)
    published: Mapped[datetime | None] = mapped_column(UtcMoment)
    times: Mapped[int] = mapped_column(default=0)


class TakenEvent(Base):
    """The id of an event that was taken in: a second delivery changes nothing."""

    __tablename__ = "taken_events"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    host_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(36))
    at: Mapped[datetime] = mapped_column(UtcMoment)
