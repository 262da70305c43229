"""Signed envelopes: JWS compact with Ed25519, and proofs of requests.

Three kinds, told apart by `typ`, so that none can stand for another: a job (coordinator → host), vault credentials
(coordinator → host), and the proof of a request (host → coordinator; like DPoP, RFC 9449). The algorithm is pinned to
EdDSA (RFC 8037): `alg: none`, or HS256 with the public key as secret, is refused before any key is looked at.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import NotTrusted


class EnvelopeType(StrEnum):
    JOB = "stateward-job+jwt"
    CREDENTIALS = "stateward-credentials+jwt"
    REQUEST = "stateward-request+jwt"


def key_id(public_key: Ed25519PublicKey) -> str:
    """16 hexadecimal digits that name a key; not a proof of anything."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:16]


def fingerprint(public_key: bytes) -> str:
    """For people to compare: SHA-256 in groups of four hexadecimal digits."""
    digest = hashlib.sha256(public_key).hexdigest()[:32]
    return "-".join(digest[i : i + 4] for i in range(0, 32, 4))


def sign(claims: Mapping[str, Any], *, kind: EnvelopeType, key: Ed25519PrivateKey) -> str:
    headers = {"typ": kind.value, "kid": key_id(key.public_key())}
    return jwt.encode(dict(claims), key, algorithm="EdDSA", headers=headers)


def open_signed(token: str, *, kind: EnvelopeType, keys: Mapping[str, Ed25519PublicKey]) -> dict[str, Any]:
    """Claims of a token signed with one of `keys` (by key id).

    Time claims and the audience are the caller's to judge, who has the clock and the words for it.

    Raises:
        NotTrusted: not a token, another kind, unknown key, or the signature does not hold.
    """
    try:
        header = jwt.get_unverified_header(token)
        if header.get("alg") != "EdDSA" or header.get("typ") != kind.value:
            raise NotTrusted(f"The signed message is not of type {kind.value} with algorithm EdDSA.")
        key = keys.get(str(header.get("kid")))
        if key is None:
            raise NotTrusted("The message is signed with a key that is not trusted here.")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["EdDSA"],
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_jti": False,
                "verify_sub": False,
            },
        )
    except (jwt.PyJWTError, ValueError) as error:
        raise NotTrusted(f"The signature of the message does not hold ({type(error).__name__}).") from error
    return claims


def load_public_key(raw: bytes) -> Ed25519PublicKey:
    """Raises NotTrusted unless `raw` is a 32-byte Ed25519 public key."""
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise NotTrusted("The Ed25519 public key is not 32 bytes.") from error


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def unb64(text: str) -> bytes:
    """Raises ValueError for anything but strict base64."""
    return base64.b64decode(text, validate=True)


PROOF_HEADER = "Stateward-Proof"


def request_claims(
    *, method: str, path: str, body: bytes, host: str, instance: str, seq: int, iat: float
) -> dict[str, Any]:
    """Claims of a proof. `path` is without scheme and host, with the query; `iat` in seconds of the server's clock."""
    return {
        "htm": method,
        "htu": path,
        "bsh": hashlib.sha256(body).hexdigest(),
        "iss": host,
        "instance": instance,
        "seq": seq,
        "iat": iat,
    }
