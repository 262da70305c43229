"""The agent as a process of its own, with real Valkey under a host's ACL user, and a real HTTP server above it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from agent_rig import VAULT, Rig
from celery import Celery
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kombu import Exchange, Queue

from common.contracts import enrolment
from common.contracts.jobs import Conflict, Renewal, RestoreSpec, Stage
from common.contracts.queue import JOB_TASK
from common.ids import new_ulid, new_uuid
from common.jobstates import JobState
from common.privatefiles import make_private_folder
from common.secret import Secret
from common.signing import b64, unb64
from common.vault.grant import GrantTerms, check_restore_key, make_grant
from coordinator.embedded import QueueAccess
from coordinator.embedded.valkey import ACL_ADMIN, host_user, password_sha256
from worker.identity import Identity, save_identity
from worker.journal import Journal, Phase

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.timeout(120)


def wait_for(what: Callable[[], Any], *, within_s: float = 20.0) -> Any:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s")


class AgentHost:
    """One registered host: its state folder, its queue user, and its agent when it runs."""

    def __init__(self, state: Path, rig: Rig, valkey: QueueAccess) -> None:
        self.state = make_private_folder(state)
        self.rig = rig
        self.id = new_uuid()
        self.key = Ed25519PrivateKey.generate()
        self._valkey = valkey
        password = Secret(secrets.token_urlsafe(16))
        self._user = host_user(self.id, password_sha256(password))
        self.admin("ACL", "SETUSER", self._user.name, *self._user.line.split()[2:])
        rig.host_keys[self.id] = self.key.public_key()
        queue = enrolment.QueueAccess(
            url=f"redis://{valkey.host}:{valkey.port}/0", user=self._user.name, password=password.reveal()
        )
        self.identity = Identity(
            host_id=self.id, signing_key=b64(self.key.private_bytes_raw()), coordinator_url=rig.url,
            coordinator_keys=(b64(rig.key.public_key().public_bytes_raw()),), vault=VAULT, queue=queue,
            recovery_fingerprint="-", token_id=new_uuid(), state="active", enrolled=datetime.now(UTC),
        )  # fmt: skip
        save_identity(self.state, self.identity)
        self.journal = Journal(self.state / "agent.db", time.time)
        self.script("ok")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def user(self) -> str:
        return self._user.name

    def admin(self, *command: Any) -> Any:
        with closing(redis.Redis(
            host=self._valkey.host, port=self._valkey.port, username=ACL_ADMIN,
            password=self._valkey.admin_password.reveal(), decode_responses=True, protocol=2,
        )) as client:  # fmt: skip
            return client.execute_command(*command)

    def script(self, what: str) -> None:
        (self.state / "script").write_text(what)

    def said(self) -> list[str]:
        path = self.state / "said"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, **environment: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), **environment}
        log = (self.state / "agent.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", str(HERE / "agent_main.py"), str(self.state)], env=env, stderr=log
            )

    def started(self) -> None:
        self.start()
        wait_for(lambda: any(checkin.queue_reachable for checkin in self.rig.checkins))

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def publish(self, message: str, task: str = JOB_TASK) -> None:
        url = self._valkey.publisher_url.reveal()
        name = f"host.{self.id}"
        with Celery("test", broker=url, set_as_current=False) as app:
            app.conf.broker_transport_options = {"priority_steps": [0], "health_check_interval": 0}
            queue = Queue(name, Exchange("", no_declare=True), routing_key=name, no_declare=True)
            with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
                app.send_task(task, args=[message], queue=queue, producer=producer, ignore_result=True)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.admin("ACL", "DELUSER", self._user.name)

    def event(self, job_id: str) -> Any:
        return wait_for(lambda: [event for event in self.rig.events if event.job_id == job_id])[0]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture
def host(tmp_path: Path, rig: Rig, valkey: QueueAccess) -> Iterator[AgentHost]:
    host = AgentHost(tmp_path / "state", rig, valkey)
    yield host
    host.close()


def test_a_job_goes_from_the_queue_to_its_result_and_the_acl_denied_nothing(host: AgentHost, rig: Rig) -> None:
    host.admin("ACL", "LOG", "RESET")
    host.started()
    job_id, message = rig.job(host.id)
    began = time.monotonic()
    host.publish(message)
    event = host.event(job_id)
    assert event.state is JobState.COMMITTED
    assert event.point == rig.leases[job_id].point
    assert time.monotonic() - began < 10
    stages = [renewal.progress.stage for _, renewal in rig.renewals]
    assert stages[0] is Stage.CHECKING
    assert stages[-1] is Stage.COMMITTING
    agent = rig.checkins[0]
    assert agent.report is not None
    assert {instance.partition("/")[2] for path, instance, _ in rig.requests if "jobs" in path} == {"1"}
    assert not [entry for entry in host.admin("ACL", "LOG") if host.user in entry]
    began = time.monotonic()
    assert host.stop() == 0
    assert time.monotonic() - began < 8


def test_what_is_altered_foreign_expired_or_replayed_is_counted_and_never_run(host: AgentHost, rig: Rig) -> None:
    host.started()
    other = Ed25519PrivateKey.generate()
    rig.key, own = other, rig.key
    host.publish(rig.job(host.id)[1])
    rig.key = own
    host.publish(rig.job(new_uuid())[1])
    host.publish(rig.job(host.id, exp=int(time.time()) - 4000)[1])
    host.publish(rig.job(host.id, nbf=int(time.time()) + 4000)[1])
    host.publish("rubbish")
    host.publish("rubbish", task="celery.map")
    wanted = {"refused_altered": 2, "refused_foreign": 1, "refused_expired": 1, "refused_early": 1}
    wait_for(lambda: host.journal.counters() == wanted)
    job_id, message = rig.job(host.id)
    host.publish(message)
    host.event(job_id)
    assert len(rig.leases) == 1
    for _ in range(3):
        host.publish(message)
    wait_for(lambda: len([1 for checkin in rig.checkins if checkin.events]) >= 2)
    assert host.said()[1:] == ["committed with first"]
    assert host.stop() == 0


def test_a_job_comes_by_check_in_when_the_queue_lost_it(host: AgentHost, rig: Rig) -> None:
    job_id, message = rig.job(host.id)
    rig.pending[job_id] = message
    host.start()
    assert host.event(job_id).state is JobState.COMMITTED


def test_the_job_process_killed_is_started_again_with_the_same_lease(host: AgentHost, rig: Rig) -> None:
    host.script("crash-once")
    host.started()
    job_id, message = rig.job(host.id)
    host.publish(message)
    assert host.event(job_id).state is JobState.COMMITTED
    first, second = [line.split()[:3] for line in host.said() if line.startswith("backup")]
    assert first == second
    assert len(rig.lease_requests) == 1


def test_the_agent_killed_takes_its_job_process_along_and_the_next_start_resumes(host: AgentHost, rig: Rig) -> None:
    host.script("wait")
    host.started()
    job_id, message = rig.job(host.id)
    host.publish(message)
    pid = int(wait_for(host.said)[0].split()[3])
    assert host.process
    host.process.kill()
    host.process.wait()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, within_s=10)
    host.script("ok")
    host.start()
    assert host.event(job_id).state is JobState.COMMITTED
    assert len(rig.lease_requests) == 1


def test_a_stopped_agent_leaves_its_job_resumable(host: AgentHost, rig: Rig) -> None:
    host.script("wait")
    host.started()
    job_id, message = rig.job(host.id)
    host.publish(message)
    wait_for(host.said)
    began = time.monotonic()
    assert host.stop() == 0
    assert time.monotonic() - began < 8
    job = host.journal.job(job_id)
    assert job is not None
    assert job.phase is Phase.RUNNING
    assert not rig.events
    host.script("ok")
    host.start()
    assert host.event(job_id).state is JobState.COMMITTED


@pytest.mark.parametrize("by", ["renewal", "check-in"])
def test_a_cancelled_job_stops_within_seconds(host: AgentHost, rig: Rig, by: str) -> None:
    host.script("wait")
    rig.next_checkin_s = 0.5 if by == "check-in" else 300
    if by == "check-in":
        rig.renew = lambda *_: Renewal(server_time=rig.now())
    else:
        rig.renew = lambda job_id, _: Renewal(server_time=rig.now(), watched=True, cancel=job_id in rig.cancels)
    host.started()
    job_id, message = rig.job(host.id)
    host.publish(message)
    wait_for(host.said)
    began = time.monotonic()
    rig.cancels.add(job_id)
    assert host.event(job_id).state is JobState.CANCELLED
    assert time.monotonic() - began < 5


def test_a_store_that_is_down_for_a_while_does_not_fail_the_job(host: AgentHost, rig: Rig) -> None:
    host.script("store-down-once")
    host.started()
    job_id, message = rig.job(host.id)
    host.publish(message)
    assert host.event(job_id).state is JobState.COMMITTED


def test_a_failure_carries_code_stage_sentence_and_next_step(host: AgentHost, rig: Rig) -> None:
    host.script("fail")
    host.started()
    job_id, message = rig.job(host.id)
    host.publish(message)
    event = host.event(job_id)
    assert (event.state, event.report.code, event.report.stage) == (JobState.FAILED, "precheck_failed", Stage.UPLOADING)
    assert event.report.message == "The fridge is open."
    assert event.report.next_step


def test_nothing_is_committed_while_the_coordinator_is_silent_or_against_its_word(host: AgentHost, rig: Rig) -> None:
    rig.trouble = lambda path: "drop" if path.endswith("/renew") else None
    host.started()
    job_id, message = rig.job(host.id)
    host.publish(message)
    wait_for(host.said)
    time.sleep(3)
    assert host.said() == [line for line in host.said() if line.startswith("backup")]
    rig.trouble = lambda _: None
    assert host.event(job_id).state is JobState.COMMITTED
    lost_id, lost = rig.job(host.id)
    rig.trouble = lambda path: "409" if path.endswith("/renew") else None
    host.publish(lost)
    wait_for(lambda: (job := host.journal.job(lost_id)) and job.phase is Phase.DROPPED)
    assert [line for line in host.said() if line.startswith("committed")] == ["committed with first"]
    assert not [event for event in rig.events if event.job_id == lost_id]


def test_redis_away_means_check_ins_and_its_return_is_noticed(host: AgentHost, rig: Rig) -> None:
    broken = host.identity.model_copy(
        update={"queue": host.identity.queue.model_copy(update={"url": "redis://127.0.0.1:1/0"})}
    )
    save_identity(host.state, broken)
    job_id, message = rig.job(host.id)
    rig.pending[job_id] = message
    host.start()
    assert host.event(job_id).state is JobState.COMMITTED
    assert not any(checkin.queue_reachable for checkin in rig.checkins)
    began = time.monotonic()
    assert host.stop() == 0
    assert time.monotonic() - began < 8


def test_a_connection_that_redis_ends_is_made_again(host: AgentHost, rig: Rig) -> None:
    host.started()
    for _ in range(2):
        assert host.admin("CLIENT", "KILL", "USER", host.user) == 1
        job_id, message = rig.job(host.id)
        host.publish(message)
        assert host.event(job_id).state is JobState.COMMITTED
    assert "consumer_restarts" not in host.journal.counters()
    began = time.monotonic()
    assert host.stop() == 0
    assert time.monotonic() - began < 4


def test_results_are_spooled_while_the_coordinator_is_away(host: AgentHost, rig: Rig) -> None:
    host.started()
    rig.trouble = lambda path: "503" if path == "/v1/checkin" else None
    job_id, message = rig.job(host.id)
    host.publish(message)
    wait_for(lambda: host.journal.is_unsent(job_id))
    assert host.stop() == 0
    rig.trouble = lambda path: None
    host.start()
    assert host.event(job_id).state is JobState.COMMITTED
    wait_for(lambda: not host.journal.is_unsent(job_id))


def test_two_agents_on_one_state_folder_are_one_too_many(host: AgentHost) -> None:
    host.started()
    first = host.process
    host.start()
    assert host.process
    assert host.process.wait(20) != 0
    assert b"Another agent runs" in (host.state / "agent.log").read_bytes()
    host.process = first


def restore_spec(host: AgentHost, **changes: Any) -> RestoreSpec:
    return RestoreSpec(**{"point": new_ulid(), "source_host": host.id, **changes})


def test_a_restore_waits_for_its_grant_and_opens_it(host: AgentHost, rig: Rig) -> None:
    spec = restore_spec(host)
    job_id, message = rig.job(host.id, spec)
    grants: dict[str, str] = {}

    def renew(job_id: str, request: Any) -> Renewal:
        if request.restore_key and job_id not in grants and len(rig.renewals) > 3:
            public = unb64(request.restore_key.public_key)
            check_restore_key(public, unb64(request.restore_key.signature), job_id=job_id, host=host.key.public_key())
            terms = GrantTerms(
                vault_id=VAULT.vault_id, job_id=job_id, source_host=host.id, point=spec.point, target_host=host.id,
                destination=None, conflict="refuse", includes=(),
            )  # fmt: skip
            grants[job_id] = b64(make_grant(b"the-root", public, terms, signer=host.key))
        return Renewal(server_time=rig.now(), watched=True, grant=grants.get(job_id))

    rig.renew = renew
    host.started()
    host.publish(message)
    event = host.event(job_id)
    assert event.state is JobState.COMPLETED
    assert host.said() == [f"restore the-root to {host.state / 'restores' / job_id}"]
    assert Stage.AWAITING_GRANT in {renewal.progress.stage for _, renewal in rig.renewals}
    job = host.journal.job(job_id)
    assert job is not None
    assert job.restore_key is None


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"destination": "/tmp/elsewhere"}, "allow_other_destinations"),
        ({"conflict": Conflict.OVERWRITE}, "allow_overwrite"),
        ({"source_host": new_uuid()}, "allow_foreign_points"),
    ],
)
def test_a_restore_that_the_host_does_not_allow_is_refused_with_the_setting(
    host: AgentHost, rig: Rig, changes: dict[str, Any], setting: str
) -> None:
    host.started()
    job_id, message = rig.job(host.id, restore_spec(host, **changes))
    host.publish(message)
    event = host.event(job_id)
    assert (event.state, event.report.code) == (JobState.FAILED, "grant_refused")
    assert setting in event.report.next_step
    assert not any(renewal.restore_key for _, renewal in rig.renewals)
