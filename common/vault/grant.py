"""Grants: a person hands one point's root to one restore job on one host, through a coordinator that can read nothing.

The target host makes an ephemeral HPKE key for the job and signs it with its Ed25519 key. The person's program opens the
root with the passphrase, seals it to that key, and signs the whole with the *source* host's Ed25519 key, which the
passphrase gave back: HPKE has no sender, so without the signature a coordinator could seal a root of its own making and
have the target write what it likes. `info` binds job, point, target, destination, conflict mode and the selection, so a
coordinator that changes any of them hands over something that does not open.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import GrantRefused, NotTrusted
from common.ids import ulid_bytes, uuid_bytes
from common.secret import Secret
from common.vault import hpke
from common.vault.derive import joined
from common.vault.signed import SIGNATURE_SIZE

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


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTerms:
    """What a grant is for: all of it is bound."""

    vault_id: str
    job_id: str
    source_host: str
    point: str
    target_host: str
    destination: str | None
    """None: the target's own scratch folder."""
    conflict: str
    includes: Sequence[str]

    @property
    def info(self) -> bytes:
        """HPKE `info`."""
        there = self.destination
        where = b"scratch" if there is None else b"folder" + there.encode("utf-8", "surrogateescape")
        return joined(
            b"stateward grant v1",
            uuid_bytes(self.vault_id),
            uuid_bytes(self.job_id),
            uuid_bytes(self.source_host),
            ulid_bytes(self.point),
            uuid_bytes(self.target_host),
            where,
            self.conflict.encode(),
            joined(*(glob.encode("utf-8", "surrogateescape") for glob in self.includes)),
        )


def make_grant(root: bytes, public: bytes, terms: GrantTerms, *, signer: Ed25519PrivateKey) -> bytes:
    """signature (64) ‖ sealed root: only the target host opens it, and only for this restore. `signer` is the source
    host's key."""
    sealed = hpke.seal_to(public, root, info=terms.info)
    return signer.sign(_message(public, terms.info, sealed)) + sealed


def open_grant(grant: bytes, seed: Secret[bytes], terms: GrantTerms, *, source: Ed25519PublicKey) -> bytes:
    """The root in clear. `source` is the key of the host whose point it is, as this host has it pinned.

    Raises GrantRefused when the grant was made by somebody else, or for anything else than this restore.
    """
    signature, sealed = grant[:SIGNATURE_SIZE], grant[SIGNATURE_SIZE:]
    try:
        source.verify(signature, _message(hpke.public_key(seed), terms.info, sealed))
        return hpke.open_sealed(seed, sealed, info=terms.info)
    except (NotTrusted, InvalidSignature) as error:
        raise GrantRefused(
            "The grant was not made with the source host's key for this job, point, target, destination, conflict mode"
            " and selection."
        ) from error


def _message(public: bytes, info: bytes, sealed: bytes) -> bytes:
    return b"stateward grant v1\0" + joined(public, info, hashlib.sha256(sealed).digest())
