"""What happens to a message on its way in: verified, journalled, never executed here. Takes milliseconds.

A job comes through the queue and with check-ins, any number of times and in any order. What is refused is counted by
reason (`stateward-worker status` shows the counters) and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from pydantic import ValidationError

from common.contracts.jobs import JobMessage
from common.errors import NotTrusted
from common.signing import EnvelopeType, open_signed
from common.telemetry import get_logger
from worker.identity import Identity
from worker.journal import Journal, JournalledJob, Phase

log = get_logger(__name__)

SKEW_S = 300.0
MAX_MESSAGE = 256 * 1024


class Way(StrEnum):
    QUEUE = "queue"
    CHECKIN = "checkin"
    """Straight from the coordinator, and as of now."""


class Verdict(StrEnum):
    TAKEN = "taken"
    KNOWN = "known"
    """The job waits, runs, or its result is on its way: nothing to do."""
    REPEATED = "repeated"
    """Its stored result is sent again."""
    ALTERED = "altered"
    FOREIGN = "foreign"
    EARLY = "early"
    EXPIRED = "expired"
    REPLAYED = "replayed"


REFUSALS = frozenset({Verdict.ALTERED, Verdict.FOREIGN, Verdict.EARLY, Verdict.EXPIRED, Verdict.REPLAYED})


class Inbox:
    """`server_now`: the coordinator's time as far as it is known; `arrived` is called when there is something to do."""

    def __init__(
        self, *, identity: Identity, journal: Journal, server_now: Callable[[], float], arrived: Callable[[], None]
    ) -> None:
        self._host_id = identity.host_id
        self._keys = identity.trusted_keys()
        self._journal = journal
        self._server_now = server_now
        self._arrived = arrived

    def take(self, message: str, way: Way) -> Verdict:
        """Judge a message and journal the job. Never raises for anything that a message can hold."""
        verdict = self._judge(message, way)
        if verdict in REFUSALS:
            self._journal.count(f"refused_{verdict}")
            log.warning("message refused", reason=verdict.value, way=way.value)
        elif verdict is not Verdict.KNOWN:
            self._arrived()
        return verdict

    def _judge(self, message: str, way: Way) -> Verdict:
        if len(message) > MAX_MESSAGE:
            return Verdict.ALTERED
        try:
            claims = JobMessage.model_validate(open_signed(message, kind=EnvelopeType.JOB, keys=self._keys))
        except (NotTrusted, ValidationError):
            return Verdict.ALTERED
        if claims.aud != self._host_id:
            return Verdict.FOREIGN
        now = self._server_now()
        if claims.nbf > now + SKEW_S:
            return Verdict.EARLY
        job = self._journal.job(claims.job_id)
        refusal = self._judge_new(claims, now) if job is None else self._judge_known(job, way)
        if refusal is None:
            self._journal.add_job(claims, message)
        return refusal or Verdict.TAKEN

    def _judge_new(self, claims: JobMessage, now: float) -> Verdict | None:
        if self._journal.seen(claims.jti):
            return Verdict.REPLAYED
        return Verdict.EXPIRED if claims.exp < now - SKEW_S else None

    def _judge_known(self, job: JournalledJob, way: Way) -> Verdict | None:
        """None: the coordinator wants another attempt of what was dropped or has ended here; the lease decides."""
        if job.phase in {Phase.WAITING, Phase.RUNNING}:
            return Verdict.KNOWN
        if job.phase is Phase.DROPPED:
            return None
        if self._journal.is_unsent(job.job_id):
            return Verdict.KNOWN
        if way is Way.QUEUE or not job.repeats:
            self._journal.say_again(job.job_id)
            return Verdict.REPEATED
        return None
