"""Sealing to a public key: HPKE (RFC 9180) with ML-KEM-768 + X25519 (X-Wing, KEM 0x647A), HKDF-SHA256, AES-256-GCM.

The KEM is an IETF draft (draft-connolly-cfrg-xwing-kem): the suite id stands in every object, and known answers pin it.
`cryptography` has no serialisation of the hybrid keys, so they are kept in X-Wing's own: the private key is a 32-byte
seed, which SHAKE256 expands to the ML-KEM seed (64) ‖ the X25519 key (32); the public key is 1184 ‖ 32 bytes.
HPKE here has no AAD: what binds a ciphertext to its place goes into `info`.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from common.errors import NotTrusted
from common.secret import Secret

SUITE_ID = "xwing-hkdfsha256-aes256gcm"
SEED_SIZE = 32
PUBLIC_SIZE = 1184 + 32
_MLKEM_SEED = 64
_MLKEM_PUBLIC = 1184
MAX_INFO = 65_535

_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def public_key(seed: Secret[bytes]) -> bytes:
    """1,216 bytes for a 32-byte seed."""
    mlkem, x25519 = _expand(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def seal_to(public: bytes, plain: bytes, *, info: bytes) -> bytes:
    """`enc` (1120) ‖ ciphertext. Random: two calls never give the same bytes. Raises ValueError for a key of other size."""
    if len(public) != PUBLIC_SIZE or len(info) > MAX_INFO:
        raise ValueError("a recovery public key has 1,216 bytes, info at most 65,535")
    key = hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]),
    )
    return _SUITE.encrypt(plain, key, info=info)


def open_sealed(seed: Secret[bytes], sealed: bytes, *, info: bytes) -> bytes:
    """Raises NotTrusted when the key is not the one, or sealed bytes or `info` were changed."""
    mlkem, x25519 = _expand(seed)
    try:
        return _SUITE.decrypt(sealed, hpke.MLKEM768X25519PrivateKey(mlkem, x25519), info=info)
    except (InvalidTag, ValueError) as error:
        raise NotTrusted(
            "The sealed part does not open with this key: it was changed, or belongs elsewhere."
        ) from error


def _expand(seed: Secret[bytes]) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    if len(seed.reveal()) != SEED_SIZE:
        raise ValueError("a recovery seed has 32 bytes")
    expanded = hashlib.shake_256(seed.reveal()).digest(_MLKEM_SEED + 32)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED]),
        X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED:]),
    )
