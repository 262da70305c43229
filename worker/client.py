"""The host's way up: HTTPS calls to the coordinator, each with a proof, each safe to repeat.

A call that got no answer (or a 5xx) is sent again with the same (instance, seq): the coordinator answers a repetition
with the answer it stored. A 401 about the clock teaches the offset and costs one more try. Everything else that is not
a 2xx is the coordinator's decision and becomes an error of `common.errors` by its stable code.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from common.contracts.base import Contract
from common.contracts.checkin import CheckinReply, CheckinRequest
from common.contracts.enrolment import EnrolReply, EnrolRequest, KeysReply, KeysRequest
from common.contracts.jobs import Lease, LeaseRequest, Renewal, RenewRequest
from common.contracts.queue import (
    CHECKIN_PATH,
    ENROL_KEYS_PATH,
    ENROL_PATH,
    SERVER_TIME_HEADER,
    lease_path,
    renew_path,
)
from common.errors import Busy, ClockSkewed, CoordinatorUnavailable, NotYet, Refused, StatewardError, error_classes
from common.signing import PROOF_HEADER
from worker.proofs import Prover

Reply = TypeVar("Reply", bound=Contract)

_RETRIED = frozenset({500, 502, 503, 504})
_MAX_ANSWER = 32 * 1024 * 1024


class _Problem(BaseModel):
    """As much of a problem document as there is: what stands between us and the coordinator writes its own."""

    detail: str = ""
    code: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a call goes on trying. The pause doubles, less a random half, up to `max_pause_s`."""

    tries: int = 5
    first_pause_s: float = 0.5
    max_pause_s: float = 30.0


ONCE = Patience(tries=1)


def make_http(*, ca_pem: str, proxy: str, timeout_s: float = 30.0) -> httpx.Client:
    """With the coordinator's CAs pinned, where it has its own; else the machine's."""
    context = ssl.create_default_context(cadata=ca_pem or None)
    return httpx.Client(
        verify=context, proxy=proxy or None, timeout=httpx.Timeout(timeout_s, connect=10.0), follow_redirects=False
    )


class CoordinatorClient:
    """Threads share it; `close` it at the end. `sleep` ends early when the process is to stop; `random` is in [0, 1)."""

    def __init__(
        self,
        *,
        url: str,
        http: httpx.Client,
        prover: Prover,
        sleep: Callable[[float], object],
        random: Callable[[], float],
    ) -> None:
        self._url = url.rstrip("/")
        self._http = http
        self._prover = prover
        self._sleep = sleep
        self._random = random

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def prover(self) -> Prover:
        return self._prover

    def enrol(self, request: EnrolRequest, patience: Patience) -> EnrolReply:
        return self._post(ENROL_PATH, request, EnrolReply, patience)

    def send_keys(self, request: KeysRequest, patience: Patience) -> KeysReply:
        return self._post(ENROL_KEYS_PATH, request, KeysReply, patience)

    def check_in(self, request: CheckinRequest, patience: Patience) -> CheckinReply:
        return self._post(CHECKIN_PATH, request, CheckinReply, patience)

    def lease(self, job_id: str, request: LeaseRequest, patience: Patience) -> Lease:
        return self._post(lease_path(job_id), request, Lease, patience)

    def renew(self, job_id: str, request: RenewRequest, patience: Patience) -> Renewal:
        return self._post(renew_path(job_id), request, Renewal, patience)

    def _post(self, path: str, request: Contract, reply: type[Reply], patience: Patience) -> Reply:
        """One call, however many tries.

        Raises:
            CoordinatorUnavailable: no answer within `patience`; calling again is safe.
            NotYet: 429, with the time to wait.
            StatewardError: the coordinator refused; by its code.
        """
        body = request.model_dump_json().encode()
        seq = self._prover.next_seq()
        pause = patience.first_pause_s
        skews = 1
        tries = 0
        while True:
            tries += 1
            try:
                return self._try(path, body, seq, reply)
            except ClockSkewed:
                if not skews:
                    raise
                skews -= 1
                tries -= 1
            except CoordinatorUnavailable:
                if tries >= patience.tries:
                    raise
                self._sleep(pause * (0.5 + self._random() / 2))
                pause = min(pause * 2, patience.max_pause_s)

    def _try(self, path: str, body: bytes, seq: int, reply: type[Reply]) -> Reply:
        proof = self._prover.prove(method="POST", path=path, body=body, seq=seq)
        headers = {PROOF_HEADER: proof, "Content-Type": "application/json"}
        try:
            answer = self._http.post(self._url + path, content=body, headers=headers)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise CoordinatorUnavailable(f"The coordinator at {self._url} does not answer: {reason}.") from error
        if answer.is_success and len(answer.content) <= _MAX_ANSWER:
            try:
                return reply.model_validate_json(answer.content)
            except ValidationError as error:
                raise CoordinatorUnavailable(
                    f"The answer of {self._url}{path} is not one of this version ({error.error_count()} errors).",
                    next_step="Check that the URL is the coordinator's, and that the agent's version fits its version.",
                ) from error
        raise self._refusal(path, answer)

    def _refusal(self, path: str, answer: httpx.Response) -> StatewardError:
        problem = _Problem()
        with contextlib.suppress(ValidationError):
            problem = _Problem.model_validate_json(answer.content)
        sentence = problem.detail or f"The coordinator answered {answer.status_code} to {path}."
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return NotYet(sentence, next_step=problem.next_step or None, retry_after_s=_retry_after(answer))
        if answer.status_code in _RETRIED:
            return CoordinatorUnavailable(sentence, next_step=problem.next_step or None)
        if problem.code == ClockSkewed.code and (server := _server_time(answer)) is not None:
            self._prover.offset_s = server - self._prover.clock()
        by_code = {cls.code: cls for cls in error_classes() if cls not in {StatewardError, NotYet, Busy}}
        return by_code.get(problem.code, Refused)(sentence, next_step=problem.next_step or None)


def _retry_after(answer: httpx.Response) -> float:
    try:
        return min(max(float(answer.headers.get("Retry-After", "30")), 1.0), 3600.0)
    except ValueError:
        return 30.0


def _server_time(answer: httpx.Response) -> float | None:
    """Seconds since 1970 by the coordinator's clock; HTTP's own Date serves where its header is missing."""
    with contextlib.suppress(ValueError, KeyError):
        return datetime.fromisoformat(answer.headers[SERVER_TIME_HEADER]).timestamp()
    with contextlib.suppress(ValueError, KeyError):
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()
    return None
