"""Tables of access: tokens (hashed), credentials files (counted), answers given (sealed), rejects (kept for a look)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coordinator.db import Base, Json, UtcMoment


class ApiToken(Base):
    """An operator's bearer token; the token itself is nowhere but with the operator."""

    __tablename__ = "api_tokens"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(20))
    created: Mapped[datetime] = mapped_column(UtcMoment)
    expires: Mapped[datetime | None] = mapped_column(UtcMoment)
    revoked: Mapped[datetime | None] = mapped_column(UtcMoment)


class CredentialsFile(Base):
    """A vault credentials file that was handed out."""

    __tablename__ = "credentials_files"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    vault_id: Mapped[str] = mapped_column(ForeignKey("vaults.id"))
    uses: Mapped[int]
    used: Mapped[int] = mapped_column(default=0)
    host_pattern: Mapped[str] = mapped_column(String(255))
    labels: Mapped[dict[str, str]] = mapped_column(Json)
    region: Mapped[str] = mapped_column(String(100))
    created: Mapped[datetime] = mapped_column(UtcMoment)
    expires: Mapped[datetime] = mapped_column(UtcMoment)


class StoredAnswer(Base):
    """The answer to a host's request, so that a repeated one gets it again; sealed, since it may hold credentials."""

    __tablename__ = "stored_answers"
    __table_args__ = (Index("ix_stored_answers_at", "at"),)

    host_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    instance: Mapped[str] = mapped_column(String(100), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    request: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of method, path and body: a clone's request with an equal number is another request."""
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(Json)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[datetime] = mapped_column(UtcMoment)


class RejectedMessage(Base):
    """An event or request that was refused, kept for a look."""

    __tablename__ = "rejected_messages"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    host_id: Mapped[str] = mapped_column(String(36))
    reason: Mapped[str] = mapped_column(String(100))
    detail: Mapped[str] = mapped_column(Text)
    message: Mapped[dict[str, Any] | None] = mapped_column(Json)
    at: Mapped[datetime] = mapped_column(UtcMoment)


class Fact(Base):
    """Single facts of the installation: `epoch`, `api_alive`."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    value: Mapped[str] = mapped_column(String(200))
