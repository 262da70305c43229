"""The database: SQLite in WAL mode with a single writer, or PostgreSQL.

`write()` is one transaction of the single writer (`BEGIN IMMEDIATE` on SQLite, where writers wait for each other in the
pool, not in a busy loop); `read()` sees one snapshot and writes nothing. Transactions are short: nothing waits for a
network inside one, and nothing is enqueued inside one; `forbid_open_transaction` makes that a bug that is seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Engine, TypeDecorator, create_engine, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Session

Json = JSON().with_variant(JSONB(), "postgresql")

BUSY_TIMEOUT_S = 30


class Base(DeclarativeBase):
    """All tables."""


class UtcMoment(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite keeps it without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone does not enter the database")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """One per process. Close it with `dispose`."""

    def __init__(self, url: str) -> None:
        self._local = threading.local()
        self.sqlite = make_url(url).get_backend_name() == "sqlite"
        if self.sqlite:
            path = make_url(url).database
            if path:
                Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.writer = _sqlite_engine(url, begin="BEGIN IMMEDIATE", pool_size=1, max_overflow=0)
            self.reader = _sqlite_engine(url, begin="BEGIN", pool_size=8, max_overflow=16)
        else:
            self.writer = self.reader = create_engine(url, pool_pre_ping=True, pool_size=16, max_overflow=16)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back by any exception."""
        with self._marked(), Session(self.writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One snapshot. What is loaded stays readable after the end."""
        with self._marked(), Session(self.reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    def forbid_open_transaction(self) -> None:
        """Raises RuntimeError when this thread has one: no enqueueing, and no network, inside a transaction."""
        if getattr(self._local, "open", False):
            raise RuntimeError("a transaction is open: commit first, enqueue after")

    def dispose(self) -> None:
        self.writer.dispose()
        self.reader.dispose()

    @contextmanager
    def _marked(self) -> Iterator[None]:
        self.forbid_open_transaction()
        self._local.open = True
        try:
            yield
        finally:
            self._local.open = False


def _sqlite_engine(url: str, *, begin: str, pool_size: int, max_overflow: int) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=BUSY_TIMEOUT_S,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: `on_begin` does
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
