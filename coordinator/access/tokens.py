"""Operators' bearer tokens: asked for on loopback too, and stored as SHA-256 (32 random bytes: nothing to guess)."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.errors import NotAuthenticated
from common.ids import new_uuid
from common.privatefiles import write_private
from common.secret import Secret
from coordinator.access.models import ApiToken
from coordinator.db import Database

ADMIN = "admin"
PREFIX = "swt_"


def issue_token(session: Session, *, name: str, role: str, now: datetime) -> Secret[str]:
    token = PREFIX + secrets.token_urlsafe(32)
    session.add(
        ApiToken(id=new_uuid(), name=name, sha256=_hash(token), role=role, created=now, expires=None, revoked=None)
    )
    return Secret(token)


def check_token(session: Session, header: str | None, *, now: datetime) -> ApiToken:
    """The token of an `Authorization: Bearer …` header. Raises NotAuthenticated."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticated("The request carries no bearer token.")
    row = session.scalar(select(ApiToken).where(ApiToken.sha256 == _hash(token.strip())))
    if row is None or row.revoked is not None:
        raise NotAuthenticated("The token is unknown or was revoked.")
    if row.expires is not None and row.expires <= now:
        raise NotAuthenticated("The token has expired.")
    return row


def first_admin_token(db: Database, file: Path, *, now: datetime) -> None:
    """At first start: a token for the administrator, in a 0600 file. Written anew when the file or the row is gone."""
    held = file.read_text().strip() if file.is_file() else ""
    with db.write() as session:
        if held and session.scalar(select(ApiToken.id).where(ApiToken.sha256 == _hash(held))):
            return
        token = issue_token(session, name="first administrator", role=ADMIN, now=now)
    write_private(file, token.reveal().encode() + b"\n")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
