"""Who this host is, and whom it trusts: `identity.json` in the state folder, 0600.

What a backup must not take from the bucket or the network (recovery key, escrow keys, domains' secrets) is not here but
pinned per vault (`worker.pinned`). The host's private key leaves this file only to sign.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError

from common.contracts.base import Base64Text, Contract, Moment, Name, UuidText
from common.contracts.enrolment import QueueAccess
from common.contracts.jobs import VaultAccess
from common.errors import Damaged, NotInitialised
from common.privatefiles import remove, write_private
from common.signing import key_id, load_public_key, unb64

IDENTITY_FILE = "identity.json"

INCOMPLETE = "incomplete"
ACTIVE = "active"


class Identity(Contract):
    """One enrolment of this host."""

    version: int = 1
    host_id: UuidText
    signing_key: Base64Text = Field(repr=False)
    """Ed25519 private key, 32 bytes."""
    coordinator_url: str
    coordinator_keys: tuple[Base64Text, ...]
    """Ed25519 public keys that may sign jobs; two while the coordinator changes its key."""
    ca_pem: str = ""
    proxy: str = ""
    vault: VaultAccess
    queue: QueueAccess
    region: str = ""
    domain_policy: str = "vault"
    recovery_fingerprint: str
    """Of the recovery public key; who confirms it says that the passphrase is kept."""
    token_id: UuidText
    """`jti` of the vault credentials that were used."""
    state: Name = INCOMPLETE
    enrolled: Moment

    def key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(unb64(self.signing_key))

    def trusted_keys(self) -> dict[str, Ed25519PublicKey]:
        """Key id → key, for `common.signing.open_signed`."""
        keys = [load_public_key(unb64(text)) for text in self.coordinator_keys]
        return {key_id(key): key for key in keys}


def find_identity(state: Path) -> Identity | None:
    """Raises Damaged when there is one that cannot be read."""
    try:
        raw = (state / IDENTITY_FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Identity.model_validate_json(raw)
    except ValidationError as error:
        raise Damaged(
            f"{state / IDENTITY_FILE} is not an identity of this version ({error.error_count()} errors).",
            next_step="Restore the file from a backup of the state folder, or register this host again.",
        ) from error


def load_identity(state: Path) -> Identity:
    """Raises NotInitialised, Damaged."""
    identity = find_identity(state)
    if identity is None:
        raise NotInitialised(
            f"This host is not registered: there is no identity in {state}.",
            next_step="Run `stateward-worker register --credentials FILE --passphrase-file F` first, or name the state"
            " folder with --state.",
        )
    return identity


def save_identity(state: Path, identity: Identity) -> None:
    write_private(state / IDENTITY_FILE, identity.model_dump_json(indent=2).encode())


def forget_identity(state: Path) -> None:
    remove(state / IDENTITY_FILE)
