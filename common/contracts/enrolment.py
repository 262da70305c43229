"""How a host joins: the vault credentials file, registration, and the keys that prove the passphrase was kept.

1. `POST /v1/enrol` with the file's token, signed with the host's new Ed25519 key. Repeating it with the same key gives
   the same answer and uses the token once.
2. `POST /v1/enrol/keys` with the `hosts` record and the wrapping, which by then holds the domain secrets; the host is
   `incomplete`, and gets no job, until the key counts as saved.
"""

from __future__ import annotations

from pydantic import Field

from common.contracts.base import Base64Text, Contract, Moment, Name, UuidText
from common.contracts.checkin import HostReport
from common.contracts.jobs import VaultAccess


class CredentialsClaims(Contract):
    """Claims of the token in a vault credentials file (`typ` stateward-credentials+jwt)."""

    iss: str
    jti: UuidText
    iat: int
    exp: int
    coordinator_url: str
    coordinator_key: Base64Text
    """Ed25519 public key (32 bytes) that signs jobs and this file; pinned by the host."""
    ca_pem: str = ""
    vault: VaultAccess
    labels: dict[str, str] = Field(default_factory=dict)
    region: str = ""
    host_pattern: str = "*"
    uses: int = 1


class EnrolRequest(Contract):
    token: str
    host_id: UuidText
    host_key: Base64Text
    """Ed25519 public key, 32 bytes; the request's proof is made with it."""
    report: HostReport
    region: str = ""


class QueueAccess(Contract):
    url: str
    """`redis://host:port/0` or `rediss://…` without user and password."""
    user: str
    password: str = Field(repr=False)


class DomainSecret(Contract):
    domain_id: UuidText
    secret: Base64Text = Field(repr=False)


class EnrolReply(Contract):
    host_id: UuidText
    vault: VaultAccess
    queue: QueueAccess
    domain: DomainSecret
    domain_policy: str = "vault"
    """`vault` or `host`."""
    config_object: Base64Text
    """Newest `config/<seq>` of the vault, whole."""
    config_seq: int
    vault_object: Base64Text
    """`vault.json`, whole."""
    server_time: Moment


class KeysRequest(Contract):
    host_object_key: str
    host_object: Base64Text
    wrapping_key: str
    wrapping: Base64Text
    key_saved: str | None = None
    """Fingerprint that the operator confirmed; None leaves the registration incomplete."""


class KeysReply(Contract):
    state: Name
    """`incomplete` or `active`."""
