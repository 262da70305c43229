"""The queue is the fast way down and never the truth: it may be flushed, be down, or refuse."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from coordinator_fixtures import (
    Clock,
    Coordinator,
    Host,
    clock,
    coordinator,
    enrolled_host,
    host,
    running,
    settings_for,
    vault,
)

from common.contracts.jobs import BackupSpec
from common.contracts.operator import JobCreate, VaultCreate
from common.contracts.queue import queue_name
from common.errors import QueueUnavailable
from common.secret import Secret
from coordinator.celery_app import Emission, JobQueue, make_celery
from coordinator.embedded import QueueAccess, StoreAccess, host_user
from coordinator.janitor import restore_queue_users
from coordinator.queue_users import QueueUsers, host_password_hashes
from coordinator.scheduler import sweep
from coordinator.serve import composed

__all__ = ["clock", "coordinator", "host", "vault"]

pytestmark = pytest.mark.timeout(120)


def publisher(valkey: QueueAccess) -> redis.Redis:
    return redis.Redis(
        host=valkey.host,
        port=valkey.port,
        username="coord-pub",
        password=valkey.publisher_password.reveal(),
        protocol=2,
        driver_info=None,
        decode_responses=True,
    )


def job_queue(valkey: QueueAccess) -> JobQueue:
    return JobQueue(make_celery(f"redis://{valkey.host}:{valkey.port}/0", valkey.publisher_password))


def denied(valkey: QueueAccess) -> list[str]:
    """What the server's log of denied commands holds."""
    admin: Any = redis.Redis(
        host=valkey.host,
        port=valkey.port,
        username="acl-admin",
        password=valkey.admin_password.reveal(),
        protocol=2,
        driver_info=None,
    )
    try:
        entries = admin.execute_command("ACL", "LOG")
    finally:
        admin.close()
    return [str(entry) for entry in entries if b"coord-pub" in str(entry).encode()]


def test_a_publish_is_one_push_with_the_signed_job_alone(valkey: QueueAccess) -> None:
    before = len(denied(valkey))
    queue = job_queue(valkey)
    queue.publish([Emission("one", f"job-{n}", f"jws-{n}") for n in range(3)] + [Emission("two", "job-9", "jws-9")])
    assert (queue.length("one"), queue.length("two"), queue.length("three")) == (3, 1, 0)
    queue.delete("one")
    queue.delete("two")
    assert queue.length("one") == 0
    queue.close()
    assert len(denied(valkey)) == before, "the publisher sends no command that it may not"


def test_a_wrong_password_or_a_server_that_is_down_is_queue_unavailable(valkey: QueueAccess) -> None:
    for url, password in (
        (f"redis://{valkey.host}:{valkey.port}/0", Secret("wrong")),
        ("redis://127.0.0.1:9/0", valkey.publisher_password),
    ):
        queue = JobQueue(make_celery(url, password))
        with pytest.raises(QueueUnavailable):
            queue.publish([Emission("one", "job", "jws")])
        with pytest.raises(QueueUnavailable):
            queue.length("one")
        queue.close()


def test_a_lost_message_is_published_again_once(
    coordinator: Coordinator, host: Host, valkey: QueueAccess, clock: Clock
) -> None:
    settings = coordinator.settings
    assert settings.sweep_s > 1
    job = coordinator.api.create_job(JobCreate(host=host.id, spec=BackupSpec()))
    first = host.pop()
    assert first is not None
    with publisher(valkey) as client:
        assert client.llen(queue_name(host.id)) == 0
    clock.ahead += timedelta(seconds=60)
    queue = job_queue(valkey)
    with composed(settings, clock=clock, public_url="") as services:
        sweep(services, queue)  # unless the own sweep of the coordinator was quicker
    assert host.pop() == first
    queue.close()
    lease = host.lease(job.id, first)
    assert lease.attempt == 1


def test_jobs_go_out_by_https_while_the_queue_is_down_and_by_the_queue_after(
    tmp_path: Path, valkey: QueueAccess, seaweedfs: StoreAccess, clock: Clock
) -> None:
    up = settings_for(tmp_path / "data", valkey, seaweedfs)
    down = up.model_copy(update={"queue": up.queue.model_copy(update={"url": "redis://127.0.0.1:9/0"})})
    with running(down, clock) as coordinator:
        vault = coordinator.api.create_vault(VaultCreate(name="Main"))
        host = enrolled_host(coordinator, vault)
        job = coordinator.api.create_job(JobCreate(host=host.id, spec=BackupSpec()))
        (message,) = host.check_in(queue_reachable=False).jobs
    with running(up, clock) as coordinator:
        host.url = coordinator.url
        reply = host.enrol_again()
        assert reply.queue.url.endswith(f":{valkey.port}/0")
        assert host.pop() == message
        assert host.lease(job.id, message).attempt == 1


def test_users_of_a_queue_that_starts_anew_come_from_sql(
    coordinator: Coordinator, host: Host, valkey: QueueAccess
) -> None:
    host_id, sha256 = next(pair for pair in host_password_hashes(coordinator.settings) if pair[0] == host.id)
    admin: Any = redis.Redis(
        host=valkey.host,
        port=valkey.port,
        username="acl-admin",
        password=valkey.admin_password.reveal(),
        protocol=2,
        driver_info=None,
    )
    user = host_user(host_id, sha256)
    admin.execute_command("ACL", "DELUSER", user.name)
    admin.execute_command("ACL", "SETUSER", user.name, *user.line.split()[2:])
    admin.close()
    coordinator.api.create_job(JobCreate(host=host.id, spec=BackupSpec()))
    assert host.pop() is not None


def test_making_users_again_disturbs_no_waiting_host(coordinator: Coordinator, host: Host, valkey: QueueAccess) -> None:
    popped: list[str | None] = []
    waiting = threading.Thread(target=lambda: popped.append(host.pop(15)))
    waiting.start()
    with composed(coordinator.settings, clock=coordinator.clock, public_url="") as services:
        for _ in range(3):
            restore_queue_users(services)
        assert isinstance(services.queue_users, QueueUsers)
    coordinator.api.create_job(JobCreate(host=host.id, spec=BackupSpec()))
    waiting.join()
    assert popped[0] is not None


def test_a_host_of_the_queue_reads_its_own_list_alone(coordinator: Coordinator, host: Host) -> None:
    assert host.enrolled is not None
    access = host.enrolled.queue
    client: Any = redis.Redis.from_url(
        access.url, username=access.user, password=access.password, protocol=2, driver_info=None
    )
    try:
        assert client.execute_command("PING")
        for command in (["BRPOP", "host.other", "1"], ["LPUSH", queue_name(host.id), "x"], ["KEYS", "*"], ["INFO"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
    finally:
        client.close()
