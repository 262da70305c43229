"""Recovery points: `u32 length ‖ head (msgpack, ≤ 4 KiB) ‖ Ed25519 signature (64) ‖ sealed root`.

V2: the point is written last and is the only commit point. V7: the head is public and enough for retention, locks and
the catalogue; the root, which opens the tree, is sealed to the host's recovery public key and opens for nobody but the
passphrase. The signature covers `"stateward point v1" ‖ 0 ‖ head ‖ SHA-256(sealed root)`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import Damaged, NotTrusted
from common.ids import ulid_bytes, ulid_text, uuid_bytes, uuid_text
from common.secret import Secret
from common.vault import hpke, names
from common.vault.derive import joined
from common.vault.documents import NamedObject
from common.vault.signed import FORMAT_VERSION, SIGNATURE_SIZE, decode

MAX_HEAD = 4096
_CONTEXT = b"stateward point v1\0"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The public part. Sizes in bytes; `created` is the host's clock, shown only."""

    v: int = FORMAT_VERSION
    vault: str
    host: str
    point: str
    seq: int
    prev_point: str = ""
    prev_sha256: bytes = b""
    job: str
    attempt: int
    epoch: int
    fence: int
    source: str
    """`system-state`, `files`, or both joined by `+`."""
    created: str
    domain: str
    codec: str
    key_id: str
    config_seq: int
    config_sha256: bytes
    """The newest config that the host has seen: who opens the point notices one that is hidden."""
    suite: str = hpke.SUITE_ID
    lists: tuple[bytes, ...]
    """SHA-256, and so name, of each list page under the point's own host."""
    lists_root: bool = False
    """True: `lists` is one page that names the pages."""
    indexes: tuple[tuple[bytes, bytes, bytes], ...]
    """Host (16), ULID (16) and SHA-256 (32) of each index object that covers the packs; with `indexes_root`, none."""
    indexes_root: bytes = b""
    """SHA-256 of the page that names the index objects, when there are more than 16."""
    files: int
    logical_bytes: int
    new_bytes: int
    stored_bytes: int
    packs: int
    os_build: str = ""
    consistency: str = ""
    warnings: int = 0

    @property
    def key(self) -> str:
        return names.point(self.host, self.point)

    @property
    def list_objects(self) -> tuple[NamedObject, ...]:
        return tuple(NamedObject(names.page(self.host, sha), sha) for sha in self.lists)

    @property
    def index_objects(self) -> tuple[NamedObject, ...]:
        """Those named in the head itself."""
        return tuple(
            NamedObject(names.index(uuid_text(host), ulid_text(ulid)), sha) for host, ulid, sha in self.indexes
        )


def index_name(named: NamedObject) -> tuple[bytes, bytes, bytes]:
    """An index object as a head names it."""
    _, host, ulid = named.key.split("/")
    return uuid_bytes(host), ulid_bytes(ulid), named.sha256


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point as it lies in the store. Parsed is not verified."""

    head: Head
    head_bytes: bytes
    signature: bytes
    root: bytes
    sha256: bytes

    @property
    def key(self) -> str:
        return self.head.key

    @classmethod
    def parse(cls, raw: bytes) -> StoredPoint:
        """Raises Damaged, FormatTooNew."""
        if len(raw) < 4 + SIGNATURE_SIZE:
            raise Damaged("A recovery point is cut short.")
        (length,) = struct.unpack_from("<I", raw)
        if length > MAX_HEAD or len(raw) < 4 + length + SIGNATURE_SIZE:
            raise Damaged("A recovery point has a wrong length.")
        head = decode(raw[4 : 4 + length], Head)
        signature = raw[4 + length : 4 + length + SIGNATURE_SIZE]
        root = raw[4 + length + SIGNATURE_SIZE :]
        try:
            _ = head.key, head.index_objects, head.list_objects, uuid_bytes(head.vault)
        except ValueError as error:
            raise Damaged("A recovery point names something that cannot be a name.") from error
        return cls(head, raw[4 : 4 + length], signature, root, hashlib.sha256(raw).digest())

    def verify(self, public: Ed25519PublicKey, *, vault_id: str, object_key: str) -> None:
        """Raises NotTrusted unless this host signed exactly this point for exactly this place."""
        if self.head.vault != vault_id or self.key != object_key:
            raise NotTrusted(f"The recovery point at {object_key} says that it belongs elsewhere.")
        try:
            public.verify(self.signature, _CONTEXT + self.head_bytes + hashlib.sha256(self.root).digest())
        except InvalidSignature as error:
            raise NotTrusted(f"The signature of the recovery point {object_key} does not hold.") from error


def root_info(*, vault_id: str, object_key: str) -> bytes:
    """HPKE `info`: binds a sealed root to its place."""
    return joined(b"stateward root v1", struct.pack("<H", FORMAT_VERSION), uuid_bytes(vault_id), object_key.encode())


def write_point(head: Head, root: bytes, *, recovery_public: bytes, signer: Ed25519PrivateKey) -> bytes:
    """The bytes of a point object. Random (HPKE): write what was made once, never make it again.

    Raises ValueError when the head is over 4 KiB.
    """
    key = names.point(head.host, head.point)
    sealed = hpke.seal_to(recovery_public, root, info=root_info(vault_id=head.vault, object_key=key))
    head_bytes = msgspec.msgpack.encode(head)
    if len(head_bytes) > MAX_HEAD:
        raise ValueError(f"a head of {len(head_bytes)} bytes")
    signature = signer.sign(_CONTEXT + head_bytes + hashlib.sha256(sealed).digest())
    return struct.pack("<I", len(head_bytes)) + head_bytes + signature + sealed


def open_root(point: StoredPoint, seed: Secret[bytes]) -> bytes:
    """The root in clear. Raises NotTrusted when the key is not the one it was sealed to."""
    info = root_info(vault_id=point.head.vault, object_key=point.key)
    return hpke.open_sealed(seed, point.root, info=info)
