"""The rights of queue-and-trust.md, "Redis users", against the real server."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.secret import Secret
from coordinator.embedded.valkey import ACL_ADMIN, PUBLISHER, acl_text, host_user, password_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinator.embedded import DataLayout, QueueAccess

pytestmark = pytest.mark.timeout(60)


@contextmanager
def connected(access: QueueAccess, user: str | None, password: Secret[str] | None) -> Iterator[redis.Redis]:
    client = redis.Redis(
        host=access.host,
        port=access.port,
        username=user,
        password=password.reveal() if password else None,
        socket_timeout=5,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        driver_info=None,
    )
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def publisher(valkey: QueueAccess) -> Iterator[redis.Redis]:
    with connected(valkey, PUBLISHER, valkey.publisher_password) as client:
        yield client


@pytest.fixture
def alpha(valkey: QueueAccess) -> Iterator[redis.Redis]:
    """A host's user, made by the ACL administrator while the server runs, as an enrolment makes it."""
    password = Secret(secrets.token_urlsafe(16))
    user = host_user("alpha", password_sha256(password))
    with connected(valkey, ACL_ADMIN, valkey.admin_password) as admin:
        admin.execute_command("ACL", "SETUSER", user.name, *user.line.split()[2:])
        try:
            with connected(valkey, user.name, password) as client:
                yield client
        finally:
            admin.execute_command("ACL", "DELUSER", user.name)


def test_the_publisher_sends_and_the_host_receives(publisher: redis.Redis, alpha: redis.Redis) -> None:
    publisher.lpush("host.alpha", "one")
    assert publisher.llen("host.alpha") == 1
    assert alpha.brpop(["host.alpha"], timeout=1) == ("host.alpha", "one")


FOREIGN = [
    ("BRPOP", "host.beta", "1"),
    ("LPUSH", "host.beta", "x"),
    ("RPUSH", "host.beta", "x"),
    ("LPOP", "host.beta"),
    ("RPOP", "host.beta"),
    ("LRANGE", "host.beta", "0", "-1"),
    ("LLEN", "host.beta"),
    ("LINDEX", "host.beta", "0"),
    ("LSET", "host.beta", "0", "x"),
    ("LREM", "host.beta", "0", "x"),
    ("LTRIM", "host.beta", "1", "0"),
    ("LMPOP", "1", "host.beta", "LEFT"),
    ("BLMPOP", "1", "1", "host.beta", "LEFT"),
    ("LMOVE", "host.beta", "host.alpha", "LEFT", "LEFT"),
    ("BLMOVE", "host.beta", "host.alpha", "LEFT", "LEFT", "1"),
    ("RPOPLPUSH", "host.beta", "host.alpha"),
    ("BRPOPLPUSH", "host.beta", "host.alpha", "1"),
    ("BLPOP", "host.beta", "1"),
    ("DEL", "host.beta"),
    ("UNLINK", "host.beta"),
    ("EXPIRE", "host.beta", "1"),
    ("RENAME", "host.beta", "host.alpha"),
    ("COPY", "host.beta", "host.alpha"),
    ("DUMP", "host.beta"),
    ("MOVE", "host.beta", "1"),
    ("SORT", "host.beta", "ALPHA", "STORE", "host.alpha"),
    ("EXISTS", "host.beta"),
    ("TYPE", "host.beta"),
    ("OBJECT", "ENCODING", "host.beta"),
    ("SET", "host.beta", "x"),
    ("GET", "host.beta"),
    ("LPUSH", "host.alpha", "x"),
    ("LLEN", "host.alpha"),
    ("DEL", "host.alpha"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("DBSIZE",),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("SWAPDB", "0", "1"),
    ("SELECT", "1"),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "dir", "/"),
    ("ACL", "WHOAMI"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "host.alpha", "+@all"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("INFO",),
    ("MONITOR",),
    ("SUBSCRIBE", "c"),
    ("PUBLISH", "c", "x"),
    ("EVAL", "return 1", "0"),
    ("FUNCTION", "LIST"),
    ("SCRIPT", "LOAD", "return 1"),
    ("MULTI",),
    ("DEBUG", "JMAP"),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("SAVE",),
    ("MODULE", "LIST"),
    ("SLOWLOG", "GET"),
    ("COMMAND", "COUNT"),
]


def test_a_host_is_denied_everything_but_its_own_list(publisher: redis.Redis, alpha: redis.Redis) -> None:
    publisher.lpush("host.beta", "secret")
    allowed: list[tuple[Any, ...]] = []
    denials: list[str] = []
    for command in FOREIGN:
        try:
            allowed.append((*command, alpha.execute_command(*command)))
        except redis.exceptions.ResponseError as error:
            denials.append(str(error))
    assert allowed == []
    assert all("permission" in each or each.startswith("DEBUG command not allowed") for each in denials), denials
    assert publisher.llen("host.beta") == 1
    assert publisher.delete("host.beta") == 1


def test_the_publisher_cannot_read_or_administer(publisher: redis.Redis) -> None:
    for command in (
        ("RPOP", "host.a"),
        ("LRANGE", "host.a", "0", "-1"),
        ("LPUSH", "other", "x"),
        ("EVAL", "return 1", "0"),
        ("ACL", "LIST"),
        ("CONFIG", "GET", "*"),
        ("FLUSHALL",),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            publisher.execute_command(*command)


def test_the_acl_administrator_sees_no_key(valkey: QueueAccess) -> None:
    with connected(valkey, ACL_ADMIN, valkey.admin_password) as admin:
        for command in (("LPUSH", "host.a", "x"), ("RPOP", "host.a"), ("KEYS", "*"), ("ACL", "LIST"), ("ACL", "SAVE")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                admin.execute_command(*command)


def test_nobody_without_a_user_gets_in(valkey: QueueAccess) -> None:
    with connected(valkey, None, None) as anonymous, pytest.raises(redis.exceptions.AuthenticationError):
        anonymous.ping()
    with connected(valkey, "default", Secret("x")) as default, pytest.raises(redis.exceptions.AuthenticationError):
        default.ping()
    with connected(valkey, PUBLISHER, Secret("wrong")) as wrong, pytest.raises(redis.exceptions.AuthenticationError):
        wrong.ping()


def test_a_message_over_one_mebibyte_is_refused(publisher: redis.Redis) -> None:
    with pytest.raises((redis.exceptions.ResponseError, redis.exceptions.ConnectionError)):
        publisher.lpush("host.large", "x" * ((1 << 20) + 1))
    assert publisher.llen("host.large") == 0


def test_the_users_file_is_private_and_holds_no_password(valkey: QueueAccess, embedded_folder: DataLayout) -> None:
    file = embedded_folder.valkey / "users.acl"
    assert file.stat().st_mode & 0o777 == 0o600
    assert valkey.publisher_password.reveal() not in file.read_text()
    assert "secret" in repr(valkey)
    assert valkey.publisher_password.reveal() not in repr(valkey)


def test_a_hosts_line_is_the_one_of_the_design() -> None:
    line = acl_text([host_user("a1", "0" * 64)]).splitlines()[1]
    rights = "resetchannels -@all ~host.a1 +ping +client|setname +brpop"
    assert line == f"user host.a1 on #{'0' * 64} {rights}"
