"""What the inbox takes and refuses, and what the journal remembers of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contracts.enrolment import QueueAccess
from common.contracts.jobs import BackupSpec, JobEvent, JobReport, VaultAccess
from common.ids import new_ulid, new_uuid
from common.jobstates import JobState
from common.signing import EnvelopeType, b64, sign
from worker.identity import Identity
from worker.inbox import MAX_MESSAGE, Inbox, Verdict, Way
from worker.journal import KEEP_ENDED_S, Journal, Phase

NOW = 1_800_000_000.0
HOST = new_uuid()
KEY = Ed25519PrivateKey.generate()
OLD_KEY = Ed25519PrivateKey.generate()


class Desk:
    """An inbox with everything around it."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.arrivals = 0
        self.journal = Journal(folder / "agent.db", lambda: self.now)
        identity = Identity(
            host_id=HOST,
            signing_key=b64(Ed25519PrivateKey.generate().private_bytes_raw()),
            coordinator_url="http://c",
            coordinator_keys=tuple(b64(key.public_key().public_bytes_raw()) for key in (OLD_KEY, KEY)),
            vault=VaultAccess(vault_id=new_uuid(), name="V", url="file:///v"),
            queue=QueueAccess(url="redis://q", user="u", password="p"),
            recovery_fingerprint="f",
            token_id=new_uuid(),
            enrolled=datetime.fromtimestamp(NOW, UTC),
        )
        self.inbox = Inbox(identity=identity, journal=self.journal, server_now=lambda: self.now, arrived=self._arrived)

    def _arrived(self) -> None:
        self.arrivals += 1

    def end(self, job_id: str) -> JobEvent:
        event = JobEvent(
            id=new_ulid(),
            job_id=job_id,
            attempt=1,
            epoch=1,
            fence=1,
            state=JobState.COMMITTED,
            at=datetime.fromtimestamp(NOW, UTC),
            report=JobReport(),
        )
        self.journal.end(event)
        return event


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def message(*, key: Ed25519PrivateKey = KEY, kind: EnvelopeType = EnvelopeType.JOB, **changes: Any) -> tuple[str, str]:
    claims: dict[str, Any] = {
        "iss": "c",
        "aud": HOST,
        "jti": new_uuid(),
        "iat": int(NOW),
        "nbf": int(NOW),
        "exp": int(NOW) + 3600,
        "job_id": new_uuid(),
        "spec": BackupSpec().model_dump(mode="json"),
        **changes,
    }
    return claims["job_id"], sign(claims, kind=kind, key=key)


def test_a_good_message_is_journalled_once(desk: Desk) -> None:
    job_id, text = message()
    assert desk.inbox.take(text, Way.QUEUE) is Verdict.TAKEN
    assert desk.inbox.take(text, Way.QUEUE) is Verdict.KNOWN
    assert desk.inbox.take(text, Way.CHECKIN) is Verdict.KNOWN
    assert [job.job_id for job in desk.journal.jobs(Phase.WAITING)] == [job_id]
    assert desk.arrivals == 1


def test_both_keys_count_while_the_coordinator_changes_its_key(desk: Desk) -> None:
    assert desk.inbox.take(message(key=OLD_KEY)[1], Way.QUEUE) is Verdict.TAKEN


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("", Verdict.ALTERED),
        ("a.b.c", Verdict.ALTERED),
        ("x" * (MAX_MESSAGE + 1), Verdict.ALTERED),
        (message()[1][:-4] + "AAAA", Verdict.ALTERED),
        (message(key=Ed25519PrivateKey.generate())[1], Verdict.ALTERED),
        (message(kind=EnvelopeType.CREDENTIALS)[1], Verdict.ALTERED),
        (message(spec={"kind": "backup", "surprise": 1})[1], Verdict.ALTERED),
        (message(extra="field")[1], Verdict.ALTERED),
        (message(aud=new_uuid())[1], Verdict.FOREIGN),
        (message(exp=int(NOW) - 301)[1], Verdict.EXPIRED),
        (message(nbf=int(NOW) + 301)[1], Verdict.EARLY),
    ],
)
@pytest.mark.parametrize("way", list(Way))
def test_what_is_not_for_us_now_is_counted_and_changes_nothing(
    desk: Desk, text: str, verdict: Verdict, way: Way
) -> None:
    assert desk.inbox.take(text, way) is verdict
    assert desk.journal.counters() == {f"refused_{verdict}": 1}
    assert not desk.journal.jobs(*Phase)
    assert desk.arrivals == 0


def test_clocks_may_differ_by_five_minutes(desk: Desk) -> None:
    assert desk.inbox.take(message(exp=int(NOW) - 299)[1], Way.QUEUE) is Verdict.TAKEN
    assert desk.inbox.take(message(nbf=int(NOW) + 299)[1], Way.QUEUE) is Verdict.TAKEN


def test_a_replayed_message_gets_the_stored_result_said_again_and_runs_nothing(desk: Desk) -> None:
    job_id, text = message()
    desk.inbox.take(text, Way.QUEUE)
    event = desk.end(job_id)
    assert desk.inbox.take(text, Way.QUEUE) is Verdict.KNOWN
    desk.journal.sent((event.id,))
    for _ in range(3):
        assert desk.inbox.take(text, Way.QUEUE) is Verdict.REPEATED
        assert desk.journal.unsent() == [event]
        desk.journal.sent((event.id,))
    assert desk.journal.next_job() is None


def test_the_coordinator_that_asks_again_after_the_result_gets_another_attempt(desk: Desk) -> None:
    job_id, text = message()
    desk.inbox.take(text, Way.CHECKIN)
    before = desk.journal.job(job_id)
    event = desk.end(job_id)
    desk.journal.sent((event.id,))
    assert desk.inbox.take(text, Way.CHECKIN) is Verdict.REPEATED
    desk.journal.sent((event.id,))
    assert desk.inbox.take(text, Way.CHECKIN) is Verdict.TAKEN
    after = desk.journal.job(job_id)
    assert before
    assert after
    assert (after.phase, after.lease, after.result) == (Phase.WAITING, None, None)
    assert after.request_id != before.request_id


def test_a_dropped_attempt_may_come_back_even_after_its_window(desk: Desk) -> None:
    job_id, text = message()
    desk.inbox.take(text, Way.QUEUE)
    desk.journal.drop(job_id)
    desk.now += 7200
    assert desk.inbox.take(text, Way.QUEUE) is Verdict.TAKEN


def test_a_message_outlives_its_job_in_memory_as_long_as_it_is_valid(desk: Desk) -> None:
    job_id, text = message(exp=int(NOW + 3 * KEEP_ENDED_S))
    desk.inbox.take(text, Way.QUEUE)
    desk.journal.sent((desk.end(job_id).id,))
    desk.now += 2 * KEEP_ENDED_S
    desk.inbox.take(message(nbf=int(desk.now), exp=int(desk.now) + 60)[1], Way.QUEUE)
    assert desk.journal.job(job_id) is None
    assert desk.inbox.take(text, Way.QUEUE) is Verdict.REPLAYED
