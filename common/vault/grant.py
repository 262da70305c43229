"""Grants: a person hands one point's root to one restore job on one host, through a coordinator that can read nothing.

The target host makes an ephemeral HPKE key for the job and signs it with its Ed25519 key. The person's program opens the
root with the passphrase and seals it to that key; `info` binds job, point, target, destination and conflict mode, so a
coordinator that changes any of them hands over something that does not open.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import GrantRefused, NotTrusted
from common.ids import ulid_bytes, uuid_bytes
from common.secret import Secret
from common.vault import hpke
from common.vault.derive import joined

_KEY_CONTEXT = b"stateward restore key v1\0"


def new_restore_key() -> tuple[Secret[bytes], bytes]:
    """(seed, public key of 1,216 bytes), for one job."""
    seed = Secret(secrets.token_bytes(hpke.SEED_SIZE))
    return seed, hpke.public_key(seed)


def sign_restore_key(public: bytes, *, job_id: str, signer: Ed25519PrivateKey) -> bytes:
    return signer.sign(_KEY_CONTEXT + uuid_bytes(job_id) + public)


def check_restore_key(public: bytes, signature: bytes, *, job_id: str, host: Ed25519PublicKey) -> None:
    """Raises NotTrusted unless the target host made this key for this job."""
    try:
        host.verify(signature, _KEY_CONTEXT + uuid_bytes(job_id) + public)
    except InvalidSignature as error:
        raise NotTrusted("The restore key is not signed by the target host.") from error


def make_grant(
    root: bytes,
    public: bytes,
    *,
    vault_id: str,
    job_id: str,
    source_host: str,
    point: str,
    target_host: str,
    destination: str | None,
    conflict: str,
) -> bytes:
    """The sealed grant: only the target host opens it, and only for this restore."""
    info = _info(vault_id, job_id, source_host, point, target_host, destination, conflict)
    return hpke.seal_to(public, root, info=info)


def open_grant(
    grant: bytes,
    seed: Secret[bytes],
    *,
    vault_id: str,
    job_id: str,
    source_host: str,
    point: str,
    target_host: str,
    destination: str | None,
    conflict: str,
) -> bytes:
    """The root in clear. Raises GrantRefused when the grant was made for anything else than this restore."""
    info = _info(vault_id, job_id, source_host, point, target_host, destination, conflict)
    try:
        return hpke.open_sealed(seed, grant, info=info)
    except NotTrusted as error:
        raise GrantRefused(
            "The grant does not belong to this job, point, target, destination and conflict mode."
        ) from error


def _info(
    vault_id: str, job_id: str, source_host: str, point: str, target_host: str, destination: str | None, conflict: str
) -> bytes:
    where = b"scratch" if destination is None else b"folder" + destination.encode("utf-8", "surrogateescape")
    return joined(
        b"stateward grant v1",
        uuid_bytes(vault_id),
        uuid_bytes(job_id),
        uuid_bytes(source_host),
        ulid_bytes(point),
        uuid_bytes(target_host),
        where,
        conflict.encode(),
    )
