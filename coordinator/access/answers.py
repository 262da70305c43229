"""Answers once given to a host: a repeated `(host, instance, seq)` of the same request gets the same one again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from coordinator.access.models import StoredAnswer
from coordinator.access.proofs import Proof
from coordinator.keys import CoordinatorKeys

KEPT = timedelta(minutes=15)
"""A proof older than five minutes is refused anyway; the rest is for clocks that are off."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def find_answer(session: Session, keys: CoordinatorKeys, proof: Proof) -> Answer | None:
    row = session.get(StoredAnswer, (proof.host, proof.instance, proof.seq, proof.request))
    if row is None:
        return None
    body = keys.open_answer(row.sealed, context=_context(proof))
    return None if body is None else Answer(row.status, dict(row.headers), body)


def store_answer(session: Session, keys: CoordinatorKeys, proof: Proof, answer: Answer, *, now: datetime) -> None:
    """Sealed: leases hold storage credentials, and SQL holds no secret."""
    session.merge(
        StoredAnswer(
            host_id=proof.host,
            instance=proof.instance,
            seq=proof.seq,
            request=proof.request,
            status=answer.status,
            headers=answer.headers,
            sealed=keys.seal_answer(answer.body, context=_context(proof)),
            at=now,
        )
    )


def forget_old_answers(session: Session, *, now: datetime) -> None:
    session.execute(delete(StoredAnswer).where(StoredAnswer.at < now - KEPT))


def _context(proof: Proof) -> str:
    return f"{proof.host}\n{proof.instance}\n{proof.seq}\n{proof.request}"
