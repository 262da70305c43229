"""Proofs of requests: who asks, for what, and the how-manieth request of this process it is."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.signing import EnvelopeType, request_claims, sign


def new_instance() -> str:
    """Names one start of the agent; its job processes are `<instance>/<n>`. Two agents with one identity are clones."""
    return secrets.token_hex(8)


@dataclass(slots=True)
class Prover:
    """Signs requests. Threads share it.

    A request keeps its `seq` through all its tries, so that the coordinator answers a repetition with the stored
    answer; `iat` is of the try, by the coordinator's clock as far as it is known.
    """

    host_id: str
    key: Ed25519PrivateKey
    instance: str
    clock: Callable[[], float]
    offset_s: float = 0.0
    """Coordinator's clock less ours."""
    _seqs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_seq(self) -> int:
        with self._lock:
            return next(self._seqs)

    def prove(self, *, method: str, path: str, body: bytes, seq: int) -> str:
        claims = request_claims(
            method=method, path=path, body=body, host=self.host_id, instance=self.instance, seq=seq, iat=self.server_now
        )
        return sign(claims, kind=EnvelopeType.REQUEST, key=self.key)

    @property
    def server_now(self) -> float:
        return self.clock() + self.offset_s
