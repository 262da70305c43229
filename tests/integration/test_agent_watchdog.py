"""The watchdog ends an agent whose consume loop hangs; its supervisor starts it anew."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
from agent_rig import VAULT, Rig
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contracts.checkin import HostReport
from common.contracts.enrolment import QueueAccess
from common.ids import new_uuid
from common.signing import b64
from worker import agent as agents
from worker import queue
from worker.agent import EXIT_WATCHDOG, Agent, AgentDeps
from worker.client import CoordinatorClient, make_http
from worker.identity import Identity
from worker.journal import Journal
from worker.proofs import Prover


def test_a_loop_that_hangs_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    key = Ed25519PrivateKey.generate()
    identity = Identity(
        host_id=new_uuid(), signing_key=b64(key.private_bytes_raw()), coordinator_url=rig.url,
        coordinator_keys=(b64(rig.key.public_key().public_bytes_raw()),), vault=VAULT,
        queue=QueueAccess(url="redis://127.0.0.1:1/0", user="u", password="p"),
        recovery_fingerprint="-", token_id=new_uuid(), enrolled=rig.now(),
    )  # fmt: skip
    rig.host_keys[identity.host_id] = key.public_key()
    hangs, died = threading.Event(), threading.Event()
    codes: list[int] = []

    def die(code: int) -> None:
        codes.append(code)
        died.set()
        agent.stop()
        hangs.set()

    monkeypatch.setattr(agents, "SILENT_S", 1.0)
    monkeypatch.setattr(agents, "WATCH_S", 0.1)
    monkeypatch.setattr(queue, "consume", lambda _: hangs.wait(20) and 0)
    agent = Agent(
        AgentDeps(
            identity=identity, journal=Journal(tmp_path / "agent.db", time.time),
            client=CoordinatorClient(
                url=rig.url, http=make_http(ca_pem="", proxy=""), sleep=lambda _: None, random=random.random,
                prover=Prover(host_id=identity.host_id, key=key, instance="a", clock=time.time),
            ),
            spawn=lambda *_: pytest.fail("no job was given"), state=tmp_path, start_spread_s=0,
            report=lambda: HostReport(hostname="h", os_name="L", os_version="1", os_build="1", agent_version="1"),
            clock=time.time, monotonic=time.monotonic, random=random.random, die=die,
        )
    )  # fmt: skip
    try:
        assert agent.run() == 0
    finally:
        rig.close()
    assert died.is_set()
    assert set(codes) == {EXIT_WATCHDOG}
    assert not rig.checkins[0].queue_reachable


def test_the_pulse_tells_polling_from_answers() -> None:
    now = [0.0]
    pulse = queue.Pulse(lambda: now[0])
    assert not pulse.reachable
    pulse.answered()
    assert pulse.reachable
    pulse.lost()
    assert not pulse.reachable
    pulse.answered()
    now[0] += queue.REPLY_OVERDUE_S
    pulse.polled()
    assert not pulse.reachable
    assert pulse.silent_s == 0
    now[0] += 5
    assert pulse.silent_s == 5
