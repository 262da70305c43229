"""The client against a real HTTP server: lost replies, a wrong clock, refusals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from agent_rig import Refusal, Rig
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contracts.checkin import CheckinRequest
from common.contracts.jobs import LeaseRequest
from common.errors import CoordinatorUnavailable, JobOver, NotYet, Refused
from common.ids import new_uuid
from worker.client import ONCE, CoordinatorClient, Patience, make_http
from worker.proofs import Prover

HOST = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture
def client(rig: Rig) -> Iterator[CoordinatorClient]:
    key = Ed25519PrivateKey.generate()
    rig.host_keys[HOST] = key.public_key()
    http = make_http(ca_pem="", proxy="")
    prover = Prover(host_id=HOST, key=key, instance="agent/1", clock=time.time)
    yield CoordinatorClient(url=rig.url, http=http, prover=prover, sleep=lambda _: None, random=lambda: 0.5)
    http.close()


def times(n: int, what: str) -> Callable[[str], str | None]:
    left = [what] * n
    return lambda _: left.pop() if left else None


@pytest.mark.parametrize("what", ["drop", "lose", "503", "500"])
def test_a_call_without_an_answer_is_repeated_as_the_same_call(rig: Rig, client: CoordinatorClient, what: str) -> None:
    rig.trouble = times(3, what)
    client.check_in(CheckinRequest(), Patience(tries=4))
    assert len({seq for _, _, seq in rig.requests}) == 1
    assert rig.served == 1
    client.check_in(CheckinRequest(), ONCE)
    assert rig.served == 2


def test_patience_ends(rig: Rig, client: CoordinatorClient) -> None:
    rig.trouble = lambda _: "drop"
    with pytest.raises(CoordinatorUnavailable, match="does not answer"):
        client.check_in(CheckinRequest(), Patience(tries=3))


@pytest.mark.parametrize("offset_s", [900.0, -86_400.0])
def test_a_host_whose_clock_is_off_learns_the_offset_and_works(
    rig: Rig, client: CoordinatorClient, offset_s: float
) -> None:
    rig.clock_offset_s = offset_s
    client.check_in(CheckinRequest(), ONCE)
    assert abs(client.prover.offset_s - offset_s) < 3
    client.check_in(CheckinRequest(), ONCE)
    assert len(rig.requests) == 3


def test_a_429_says_when_to_come_again(rig: Rig, client: CoordinatorClient) -> None:
    job_id, message = rig.job(HOST)
    rig.refuse_lease = Refusal(429, "not_yet", retry_after=17)
    with pytest.raises(NotYet) as refused:
        client.lease(job_id, LeaseRequest(request_id=new_uuid(), message=message), ONCE)
    assert refused.value.retry_after_s == 17


def test_refusals_keep_their_code(rig: Rig, client: CoordinatorClient) -> None:
    job_id, message = rig.job(HOST)
    rig.refuse_lease = Refusal(409, "job_over")
    with pytest.raises(JobOver):
        client.lease(job_id, LeaseRequest(request_id=new_uuid(), message=message), Patience(tries=3))
    rig.refuse_lease = Refusal(403, "something_of_a_later_version")
    with pytest.raises(Refused):
        client.lease(job_id, LeaseRequest(request_id=new_uuid(), message=message), ONCE)
    assert len(rig.lease_requests) == 2


def test_no_coordinator_is_said_in_a_sentence() -> None:
    prover = Prover(host_id=HOST, key=Ed25519PrivateKey.generate(), instance="a", clock=time.time)
    with make_http(ca_pem="", proxy="") as http:
        client = CoordinatorClient(
            url="http://127.0.0.1:1", http=http, prover=prover, sleep=lambda _: None, random=lambda: 0
        )
        with pytest.raises(CoordinatorUnavailable, match=r"http://127\.0\.0\.1:1 does not answer"):
            client.check_in(CheckinRequest(), ONCE)
