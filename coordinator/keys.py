"""The coordinator's secrets: files of mode 0600 in `<data>/coordinator/keys`, never in SQL; to be backed up as such.

::

    signing.key          Ed25519 seed: signs jobs, credentials files, decisions in vaults
    queue.secret         passwords of all Redis users are derived from it
    answers.secret       seals stored answers
    domains/<domain id>  one shared domain's secret

A file is written whole and never again: two processes that start at once agree on the first one written.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.errors import Damaged
from common.ids import is_uuid
from common.privatefiles import create_private, make_private_folder
from common.secret import Secret
from common.signing import key_id

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class CoordinatorKeys:
    """Opened once per process; immutable."""

    folder: Path
    signing: Ed25519PrivateKey
    queue: Secret[bytes]
    answers: Secret[bytes]

    @property
    def public(self) -> Ed25519PublicKey:
        return self.signing.public_key()

    @property
    def trusted(self) -> Mapping[str, Ed25519PublicKey]:
        """Keys whose messages are ours, by key id; more than one while the key rotates."""
        return {key_id(self.public): self.public}

    def domain_secret(self, domain_id: str) -> Secret[bytes]:
        """Made at the first call; the same ever after."""
        if not is_uuid(domain_id):
            raise ValueError(f"not a domain id: {domain_id!r}")
        return Secret(_kept(self.folder / "domains" / domain_id, lambda: secrets.token_bytes(_KEY_BYTES)))

    def queue_password(self, user: str, *, public_key: bytes = b"") -> Secret[str]:
        """Of a Redis user. A host's depends on its key, so that who enrols anew gets a new one."""
        message = b"stateward queue user\0" + user.encode() + b"\0" + public_key
        return Secret(hmac.new(self.queue.reveal(), message, hashlib.sha256).hexdigest())

    def seal_answer(self, answer: bytes, *, context: str) -> bytes:
        nonce = secrets.token_bytes(12)
        return nonce + AESGCM(self.answers.reveal()).encrypt(nonce, answer, context.encode())

    def open_answer(self, sealed: bytes, *, context: str) -> bytes | None:
        """None when it was sealed by another installation."""
        try:
            return AESGCM(self.answers.reveal()).decrypt(sealed[:12], sealed[12:], context.encode())
        except InvalidTag:
            return None


def open_keys(folder: Path) -> CoordinatorKeys:
    """The keys in `<folder>/keys`; missing ones are made."""
    keys = folder / "keys"
    make_private_folder(keys / "domains")
    seed = _kept(keys / "signing.key", lambda: Ed25519PrivateKey.generate().private_bytes_raw())
    return CoordinatorKeys(
        folder=keys,
        signing=Ed25519PrivateKey.from_private_bytes(seed),
        queue=Secret(_kept(keys / "queue.secret", lambda: secrets.token_bytes(_KEY_BYTES))),
        answers=Secret(_kept(keys / "answers.secret", lambda: secrets.token_bytes(_KEY_BYTES))),
    )


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        make_private_folder(path.parent)
        create_private(path, base64.b64encode(make()) + b"\n")
    try:
        value = base64.b64decode(path.read_bytes().strip(), validate=True)
    except ValueError as error:
        raise Damaged(f"The key file {path} is damaged.", next_step="Put it back from its backup.") from error
    if len(value) != _KEY_BYTES:
        raise Damaged(
            f"The key file {path} does not hold {_KEY_BYTES} bytes.", next_step="Put it back from its backup."
        )
    return value
