"""Making and opening a vault: `vault.json` and the chain of `config` objects.

`vault.json` is written once and names who signs; `config/1` names its SHA-256, and so does every wrapping, so that who
has a passphrase takes no planted one. Each later `config/<seq>` names the SHA-256 of the one before and is signed with the
key that one names. A host pins vault id, signer and newest seq, and takes nothing older from the bucket.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import AlreadyExists, Damaged, FormatTooNew, NotTrusted
from common.ids import is_uuid
from common.signing import load_public_key
from common.vault import names
from common.vault.blocks import MAX_PLAIN, codec_id
from common.vault.documents import Chunking, ConfigDocument, Immutability, VaultDocument
from common.vault.reading import read_oldest
from common.vault.signed import FORMAT_VERSION, read_signed, write_signed
from common.vault.store import ObjectMissing, Store

DEFAULT_LEVEL = 1
_LEAST, _MOST_MINIMUM, _LEAST_AVERAGE, _LEAST_MAXIMUM = 64, 1024 * 1024, 256, 1024
"""Bytes: what pyfastcdc takes as sizes of blocks."""
DEFAULT_CHUNKING = Chunking()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What a host has seen of a vault and does not let go of."""

    vault_id: str
    signer: bytes
    config_seq: int
    config_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVault:
    """A vault whose config chain holds."""

    document: VaultDocument
    document_sha256: bytes
    """Of `vault.json` as it is stored."""
    config: ConfigDocument
    config_sha256: bytes
    problem: str = ""
    """Of a recovery: what lies where the next config would be, and is none."""

    @property
    def id(self) -> str:
        return self.document.vault

    @property
    def signer(self) -> Ed25519PublicKey:
        """Who signs `state` objects now."""
        return load_public_key(self.config.signer)

    @property
    def pin(self) -> Pin:
        return Pin(
            vault_id=self.id,
            signer=self.config.signer,
            config_seq=self.config.seq,
            config_sha256=self.config_sha256,
        )


def create_vault(
    store: Store,
    *,
    vault_id: str,
    name: str,
    signer: Ed25519PrivateKey,
    clock: Callable[[], datetime],
    level: int = DEFAULT_LEVEL,
    immutability: Immutability = Immutability.DISABLED,
    chunking: Chunking = DEFAULT_CHUNKING,
) -> OpenVault:
    """Write `vault.json` and `config/1`. May be repeated with the same id and key after a crash.

    Raises:
        AlreadyExists: the place holds another vault.
    """
    public = signer.public_key().public_bytes_raw()
    created = clock().isoformat()
    document = VaultDocument(
        vault=vault_id,
        name=name,
        created=created,
        signer=base64.b64encode(public).decode(),
        chunking=chunking,
    )
    stored = msgspec.json.format(msgspec.json.encode(document))
    document_sha256 = hashlib.sha256(stored).digest()
    try:
        store.put(names.VAULT, stored)
    except AlreadyExists:
        found, document_sha256 = read_vault_document(store)
        if found.vault != vault_id or base64.b64decode(found.signer) != public:
            raise
        document = found
    config = ConfigDocument(
        seq=1,
        prev_sha256=document_sha256,
        created=created,
        codec=codec_id(level),
        signer=public,
        immutability=immutability.value,
    )
    key = names.config(1)
    raw = write_signed("config", config, vault_id=vault_id, object_key=key, signer=signer)
    try:
        store.put(key, raw)
    except AlreadyExists:
        return open_vault(store)
    return OpenVault(
        document=document,
        document_sha256=document_sha256,
        config=config,
        config_sha256=hashlib.sha256(raw).digest(),
    )


def read_vault_document(store: Store) -> tuple[VaultDocument, bytes]:
    """`vault.json` and the SHA-256 of its bytes. Raises ObjectMissing (no vault here), Damaged, FormatTooNew."""
    return read_oldest(store, names.VAULT, lambda raw: (parse_vault_document(raw), hashlib.sha256(raw).digest()))


def parse_vault_document(raw: bytes) -> VaultDocument:
    """Raises Damaged, FormatTooNew."""
    try:
        version = msgspec.json.decode(raw, type=dict[str, object]).get("v")
        if not isinstance(version, int):
            raise Damaged("The object vault.json does not say its format version.")
        if version < FORMAT_VERSION:
            raise Damaged("The object vault.json does not say a format version that exists.")
        if version > FORMAT_VERSION:
            raise FormatTooNew(f"The vault has format version {version}; this program knows {FORMAT_VERSION}.")
        document = msgspec.json.decode(raw, type=VaultDocument)
        if not is_uuid(document.vault):
            raise Damaged("The object vault.json does not name the vault's id.")
        base64.b64decode(document.signer, validate=True)
        _check_chunking(document.chunking)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Damaged(f"The object vault.json is not what it should be ({error}).") from error
    return document


def _check_chunking(chunking: Chunking) -> None:
    """Raises Damaged where blocks would come out that no reader opens."""
    sizes = (chunking.min_size, chunking.average_size, chunking.max_size)
    if (
        not _LEAST <= sizes[0] <= sizes[1] <= sizes[2] <= MAX_PLAIN
        or sizes[0] > _MOST_MINIMUM
        or sizes[1] < _LEAST_AVERAGE
        or sizes[2] < _LEAST_MAXIMUM
        or chunking.normalization not in range(4)
        or not 0 <= chunking.bundle_limit <= MAX_PLAIN
        or chunking.segment_size < chunking.max_size
    ):
        raise Damaged("The object vault.json has chunking parameters that are not allowed.")


def open_vault(store: Store, *, pinned: Pin | None = None, recovering: bool = False) -> OpenVault:
    """Verify the config chain and give the newest.

    `recovering` goes by the chain as far as it holds: else one object that anybody could add after it would lock out
    every passphrase.

    Raises:
        ObjectMissing: there is no vault here.
        NotTrusted: the chain does not hold, or is not the pinned vault, or older than what was seen.
    """
    document, document_sha256 = read_vault_document(store)
    if pinned is not None and document.vault != pinned.vault_id:
        raise NotTrusted(
            f"The vault here is {document.vault}, not the one this host is enrolled in ({pinned.vault_id})."
        )
    signer = base64.b64decode(document.signer)
    config: ConfigDocument | None = None
    sha256 = document_sha256
    problem = ""
    while True:
        seq = 1 if config is None else config.seq + 1
        try:
            config, sha256 = _next_config(store, document.vault, seq, signer, sha256)
        except ObjectMissing:
            break
        except (Damaged, NotTrusted) as error:
            if not recovering or config is None:
                raise
            problem = f"{names.config(seq)}: {error.message}"
            break
        signer = config.signer
        if pinned is not None and config.seq == pinned.config_seq and sha256 != pinned.config_sha256:
            raise NotTrusted(f"The vault's config {config.seq} is not the one that this host has seen.")
    if config is None:
        raise Damaged("The vault has no config.")
    if pinned is not None and config.seq < pinned.config_seq:
        raise NotTrusted(
            f"The vault's newest config is {config.seq}, but this host has seen {pinned.config_seq}: newer ones are hidden."
        )
    return OpenVault(
        document=document,
        document_sha256=document_sha256,
        config=config,
        config_sha256=sha256,
        problem=problem,
    )


def _next_config(store: Store, vault_id: str, seq: int, signer: bytes, before: bytes) -> tuple[ConfigDocument, bytes]:
    key = names.config(seq)
    public: Ed25519PublicKey = load_public_key(signer)

    def accept(raw: bytes) -> tuple[ConfigDocument, bytes]:
        found = read_signed("config", raw, ConfigDocument, vault_id=vault_id, object_key=key, public=public)
        if found.seq != seq or found.prev_sha256 != before:
            raise NotTrusted(f"The vault's {key} does not follow the config before it.")
        return found, hashlib.sha256(raw).digest()

    return read_oldest(store, key, accept)
