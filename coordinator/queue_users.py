"""Redis users: one a host that may pop its own list alone, one that publishes, one that changes users.

The lines are those of the design, character by character; a test tries what they deny. At start the ACL file is
written from SQL (`acl_lines`); afterwards users are changed one by one (`QueueUsers`), never by loading the file again,
which disconnects every client.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import inspect, select

from common.contracts.queue import queue_name
from common.errors import QueueUnavailable
from common.secret import Secret
from coordinator.db import Database
from coordinator.hosts.models import Host, HostState
from coordinator.keys import CoordinatorKeys, open_keys

if TYPE_CHECKING:
    from coordinator.settings import QueueSettings, Settings

PUBLISHER = "coord-pub"
ACL_ADMIN = "acl-admin"

PUBLISHER_RIGHTS = ("resetchannels", "-@all", "~host.*", "+ping", "+client|setname", "+lpush", "+llen", "+del")
ACL_ADMIN_RIGHTS = (
    "resetchannels", "-@all", "+ping", "+acl|setuser", "+acl|deluser", "+acl|load", "+acl|log", "+client|kill",
)  # fmt: skip


def host_rights(host_id: str) -> tuple[str, ...]:
    """A host may pop its own list and nothing else."""
    return ("resetchannels", "-@all", f"~{queue_name(host_id)}", "+ping", "+client|setname", "+brpop")


def host_rules(host_id: str, password: Secret[str]) -> list[str]:
    return ["on", _hashed(password), *host_rights(host_id)]


def publisher_rules(password: Secret[str]) -> list[str]:
    return ["on", _hashed(password), *PUBLISHER_RIGHTS]


def acl_admin_rules(password: Secret[str]) -> list[str]:
    return ["on", _hashed(password), *ACL_ADMIN_RIGHTS]


def acl_lines(settings: Settings) -> tuple[str, ...]:
    """The whole ACL file, from SQL and the key files: for whoever starts Redis, before it starts.

    Works before the coordinator ever ran (its folder and keys are made; there are no hosts yet).
    """
    keys = open_keys(settings.folder)
    fixed = [
        (PUBLISHER, publisher_rules(publisher_password(settings.queue, keys))),
        (ACL_ADMIN, acl_admin_rules(admin_password(settings.queue, keys))),
    ]
    hosts = [
        (queue_name(host), host_rules(host, keys.queue_password(queue_name(host), public_key=public_key)))
        for host, public_key in _hosts_of(settings)
    ]
    return ("user default off", *(f"user {name} {' '.join(rules)}" for name, rules in [*fixed, *hosts]))


def host_password_hashes(settings: Settings) -> tuple[tuple[str, str], ...]:
    """(host id, SHA-256 of its password) of every host: for a starter of Redis that writes the lines itself."""
    keys = open_keys(settings.folder)
    return tuple(
        (host, _hashed(keys.queue_password(queue_name(host), public_key=public_key)).removeprefix("#"))
        for host, public_key in _hosts_of(settings)
    )


def publisher_password(settings: QueueSettings, keys: CoordinatorKeys) -> Secret[str]:
    given = settings.publisher_password.get_secret_value()
    return Secret(given) if given else keys.queue_password(PUBLISHER)


def admin_password(settings: QueueSettings, keys: CoordinatorKeys) -> Secret[str]:
    given = settings.admin_password.get_secret_value()
    return Secret(given) if given else keys.queue_password(ACL_ADMIN)


def _hosts_of(settings: Settings) -> list[tuple[str, bytes]]:
    if not settings.database_url and not (settings.folder / "stateward.db").exists():
        return []
    db = Database(settings.sql_url)
    try:
        return _known_hosts(db) if inspect(db.reader).has_table(Host.__tablename__) else []
    finally:
        db.dispose()


def _known_hosts(db: Database) -> list[tuple[str, bytes]]:
    with db.read() as session:
        rows = session.execute(select(Host.id, Host.public_key).where(Host.state != HostState.REMOVED.value))
        return [(host, public_key) for host, public_key in rows]


def _hashed(password: Secret[str]) -> str:
    return "#" + hashlib.sha256(password.reveal().encode()).hexdigest()


class QueueUsers:
    """Changes users of a running Redis, as `acl-admin`. Every call may be repeated."""

    def __init__(self, settings: QueueSettings, keys: CoordinatorKeys) -> None:
        self._keys = keys
        self._lock = threading.Lock()
        self._client: Any = redis.Redis.from_url(
            settings.url,
            username=ACL_ADMIN,
            password=admin_password(settings, keys).reveal(),
            socket_timeout=5,
            socket_connect_timeout=5,
            driver_info=None,
            retry=Retry(NoBackoff(), 1),
            protocol=2,
        )

    def add(self, host_id: str, public_key: bytes) -> None:
        """Raises QueueUnavailable; `restore_all` makes good for it later."""
        name = queue_name(host_id)
        rules = host_rules(host_id, self._keys.queue_password(name, public_key=public_key))
        with self._errors():
            self._client.execute_command("ACL", "SETUSER", name, "reset", *rules)

    def remove(self, host_id: str) -> None:
        """The user ends, and its connections with it."""
        name = queue_name(host_id)
        with self._errors():
            self._client.execute_command("ACL", "DELUSER", name)
            with contextlib.suppress(redis.ResponseError):  # no such user any more: it has no connections either
                self._client.execute_command("CLIENT", "KILL", "USER", name)

    def restore_all(self, db: Database) -> None:
        """All hosts of SQL, again: after Redis lost its users."""
        for host_id, public_key in _known_hosts(db):
            self.add(host_id, public_key)

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except redis.RedisError as error:
                raise QueueUnavailable(f"The queue's users cannot be changed: {error}") from error
