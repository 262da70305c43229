"""The vault's small documents: what they say, and who signs them.

| object | signed with |
|---|---|
| `vault.json` | nothing: its key is pinned at enrolment; `config/1` proves the signer holds it |
| `config/<seq>` | the signer's key named by the config before it (the first: by `vault.json`) |
| `hosts/<host>/<ulid>` | the host's Ed25519 key of the record before it (the first: its own) |
| `state/<host>/<point>/<ulid>` | the signer's key (coordinator's, or the standalone worker's) |
| `leases/<host>/<ulid>` | the host's Ed25519 key |

Times are RFC 3339 text of the writer's clock: shown to people, never decided upon.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from common.vault.signed import FORMAT_VERSION


class Chunking(msgspec.Struct, frozen=True, kw_only=True):
    """FastCDC 2020 (pyfastcdc): sizes in bytes. Part of the format of one vault; never changed."""

    algorithm: str = "fastcdc-2020"
    min_size: int = 256 * 1024
    average_size: int = 1024 * 1024
    max_size: int = 4 * 1024 * 1024
    normalization: int = 1
    bundle_limit: int = 256 * 1024
    """Files up to this size are joined before they are cut."""
    segment_size: int = 128 * 1024 * 1024
    """Longer files are cut in independent segments of this size."""


class VaultDocument(msgspec.Struct, frozen=True, kw_only=True):
    """`vault.json`, as JSON."""

    v: int = FORMAT_VERSION
    vault: str
    name: str
    created: str
    signer: str
    """Ed25519 public key, base64, of the coordinator or of the host that made the vault."""
    chunking: Chunking = Chunking()


class Immutability(StrEnum):
    DISABLED = "disabled"
    UNLOCKED = "unlocked"
    LOCKED = "locked"


class ConfigDocument(msgspec.Struct, frozen=True, kw_only=True):
    v: int = FORMAT_VERSION
    seq: int
    prev_sha256: bytes = b""
    """Of the stored bytes of the config before; the first names those of `vault.json`."""
    created: str
    codec: str
    signer: bytes
    """Who signs from here on."""
    immutability: str = Immutability.DISABLED
    grace_s: int = 48 * 3600
    full_reread_every: int = 14
    """Every so many runs a host reads everything again."""


class HostDocument(msgspec.Struct, frozen=True, kw_only=True):
    v: int = FORMAT_VERSION
    host: str
    name: str
    labels: dict[str, str] = {}
    region: str = ""
    signing_public: bytes
    recovery_public: bytes
    key_id: str
    wrappings: dict[str, bytes] = {}
    """Object key → SHA-256 of each wrapping that counts."""
    prev_sha256: bytes = b""
    created: str
    removed: bool = False


class Decision(StrEnum):
    RECEIVED = "received"
    QUARANTINED = "quarantined"
    DELETED = "deleted"
    UNDELETED = "undeleted"
    PURGED = "purged"
    RETENTION = "retention"


class StateDocument(msgspec.Struct, frozen=True, kw_only=True):
    v: int = FORMAT_VERSION
    decision: str
    point_sha256: bytes
    """Of the stored bytes of the point object that this is about."""
    created: str
    seq: int = 0
    reason: str = ""
    tags: tuple[str, ...] = ()
    expires: str = ""


class NamedObject(msgspec.Struct, frozen=True, array_like=True):
    """An object by key, with the SHA-256 of its bytes."""

    key: str
    sha256: bytes


class LeaseDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A running backup: what it relies on and what it has written. Collection and the known set go by it."""

    v: int = FORMAT_VERSION
    job: str
    attempt: int
    epoch: int
    fence: int
    point: str
    relies_lists: tuple[NamedObject, ...] = ()
    relies_indexes: tuple[NamedObject, ...] = ()
    wrote_lists: tuple[NamedObject, ...] = ()
    wrote_indexes: tuple[NamedObject, ...] = ()
    created: str
