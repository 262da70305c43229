"""The table of vaults."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coordinator.db import Base, UtcMoment


class VaultState(StrEnum):
    """A vault is made in steps; each may be done again after a crash."""

    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"


class Vault(Base):
    __tablename__ = "vaults"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    bucket: Mapped[str] = mapped_column(String(63))
    url: Mapped[str] = mapped_column(String(500))
    region: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(20))
    step: Mapped[str] = mapped_column(String(50), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    domain_id: Mapped[str] = mapped_column(String(36))
    max_concurrent_jobs: Mapped[int | None]
    vault_object: Mapped[bytes | None] = mapped_column(LargeBinary)
    config_key: Mapped[str] = mapped_column(String(100), default="")
    config_object: Mapped[bytes | None] = mapped_column(LargeBinary)
    config_seq: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime] = mapped_column(UtcMoment)
