"""The proof on a host's request (a JWS like DPoP): who asks, for exactly what, and when.

What it must say stands in `common.signing.request_claims`. Order is never a reason to refuse: a restored, old or
cloned host would fall silent. A repeated request gets its stored answer (`coordinator.access.answers`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.errors import ClockSkewed, NotAuthenticated, NotTrusted
from common.ids import is_uuid
from common.signing import EnvelopeType, key_id, open_signed

TOLERANCE_S = 300
_INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,64}(?:/[A-Za-z0-9._-]{1,32})?")
_MAX_PROOF = 4096
_MAX_SEQ = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Of one request that its host has signed."""

    host: str
    instance: str
    """`<agent>/<n>`: the agent's and one counter of it."""
    seq: int
    request: str
    """SHA-256 of method, path and body."""
    offset_s: float
    """The host's clock minus ours."""

    @property
    def agent(self) -> str:
        """The part that names the agent's process: two of them taking turns are a clone."""
        return self.instance.partition("/")[0]


def claimed_host(header: str | None) -> str:
    """The host a proof says it is from, for looking up its key; nothing is proven yet."""
    if not header or len(header) > _MAX_PROOF:
        raise NotAuthenticated("The request carries no proof of its host.")
    try:
        claims = jwt.decode(header, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise NotAuthenticated("The proof of the request cannot be read.") from error
    host = claims.get("iss")
    if not isinstance(host, str) or not is_uuid(host):
        raise NotAuthenticated("The proof of the request names no host.")
    return host


def check_proof(
    header: str, *, key: Ed25519PublicKey, host: str, method: str, path: str, body: bytes, now: datetime
) -> Proof:
    """Raises NotAuthenticated or ClockSkewed."""
    try:
        claims = open_signed(header, kind=EnvelopeType.REQUEST, keys={key_id(key): key})
    except NotTrusted as error:
        raise NotAuthenticated("The proof of the request is not signed with this host's key.") from error
    digest = hashlib.sha256(body).hexdigest()
    if (claims.get("htm"), claims.get("htu"), claims.get("bsh"), claims.get("iss")) != (method, path, digest, host):
        raise NotAuthenticated("The proof belongs to another request.")
    instance, seq, iat = claims.get("instance"), claims.get("seq"), claims.get("iat")
    if not isinstance(instance, str) or not _INSTANCE.fullmatch(instance):
        raise NotAuthenticated("The proof names no instance.")
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= _MAX_SEQ:
        raise NotAuthenticated("The proof has no sequence number.")
    if isinstance(iat, bool) or not isinstance(iat, int | float):
        raise NotAuthenticated("The proof has no time.")
    offset = iat - now.timestamp()
    if not abs(offset) <= TOLERANCE_S:
        raise ClockSkewed(f"The proof is {offset:.0f} s off; the coordinator's time is {now.isoformat()}.")
    request = hashlib.sha256(f"{method}\n{path}\n{digest}".encode()).hexdigest()
    return Proof(host=host, instance=instance, seq=seq, request=request, offset_s=offset)
