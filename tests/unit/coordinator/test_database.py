"""The database: migrations make what the models say; one writer; no transaction inside another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, StatementError

from common.errors import ConfigInvalid
from coordinator.access.facts import api_alive, say_api_alive
from coordinator.access.models import ApiToken
from coordinator.db import Database
from coordinator.migrate import migrate
from coordinator.points.models import Point
from coordinator.schema import metadata

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(f"sqlite:///{tmp_path / 'x.db'}")
    migrate(db)
    yield db
    db.dispose()


def token(name: str, created: datetime = NOW) -> ApiToken:
    return ApiToken(id=name, name=name, sha256=name, role="admin", created=created)


def test_migrations_make_what_the_models_say(db: Database) -> None:
    migrate(db)  # again: nothing to do
    with db.reader.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_newer_database_is_refused(db: Database) -> None:
    with db.write() as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(ConfigInvalid, match="another program version"):
        migrate(db)


def test_wal_foreign_keys_and_times_in_utc(db: Database) -> None:
    with db.read() as session:
        assert session.scalar(text("pragma journal_mode")) == "wal"
        assert session.scalar(text("pragma foreign_keys")) == 1
    point = dict.fromkeys(("logical_bytes", "new_bytes", "stored_bytes", "files", "warnings", "seq"), 0)
    with pytest.raises(IntegrityError), db.write() as session:
        session.add(
            Point(id="p", host_id="none", vault_id="none", sha256="", object_key="", verdict="", consistency="",
                  created=NOW, received=NOW, indexes=[], lists=[], pack_hosts=[], **point)
        )  # fmt: skip
    east = timezone(timedelta(hours=5))
    with db.write() as session:
        session.add(token("a", NOW.astimezone(east)))
    with db.read() as session:
        assert session.scalars(select(ApiToken)).one().created == NOW
    with pytest.raises(StatementError), db.write() as session:
        session.add(token("naive", datetime(2026, 1, 1)))  # noqa: DTZ001


def test_a_failed_transaction_leaves_nothing(db: Database) -> None:
    with pytest.raises(IntegrityError), db.write() as session:
        session.add_all([token("a"), token("b"), token("c"), ApiToken(id="a")])
    with db.read() as session:
        assert session.scalars(select(ApiToken)).all() == []


def test_no_transaction_inside_another_and_none_open_when_something_is_enqueued(db: Database) -> None:
    with db.write():
        with pytest.raises(RuntimeError, match="commit first"), db.read():
            pass
        with pytest.raises(RuntimeError, match="commit first"):
            db.forbid_open_transaction()
    db.forbid_open_transaction()


def test_many_writers_wait_for_one_another(db: Database) -> None:
    def write(start: int) -> None:
        for n in range(20):
            with db.write() as session:
                session.add(token(f"{start}-{n}"))

    threads = [threading.Thread(target=write, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as session:
        assert len(session.scalars(select(ApiToken)).all()) == 160


def test_the_api_says_that_it_is_alive(db: Database) -> None:
    with db.write() as session:
        assert api_alive(session) is None
        say_api_alive(session, now=NOW)
    with db.write() as session:
        say_api_alive(session, now=NOW + timedelta(seconds=9))
    with db.read() as session:
        assert api_alive(session) == NOW + timedelta(seconds=9)
