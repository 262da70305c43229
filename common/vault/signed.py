"""Signed documents in the vault: `u32 length ‖ body (msgpack) ‖ Ed25519 signature (64 bytes)`.

The signature covers `"stateward <kind> v1" ‖ 0 ‖ vault id ‖ length-prefixed object key ‖ body` as stored, so no canonical
form is needed, and a document means something only under its own key in its own vault. Keys are relative to the vault's
root: a vault can be copied.
"""

from __future__ import annotations

import struct
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import Damaged, FormatTooNew, NotTrusted
from common.ids import uuid_bytes
from common.vault.derive import joined

SIGNATURE_SIZE = 64
FORMAT_VERSION = 1
MAX_BODY = 16 * 1024 * 1024

T = TypeVar("T", bound=msgspec.Struct)


class _Versioned(msgspec.Struct):
    v: int = 0


def write_signed(
    kind: str, document: msgspec.Struct, *, vault_id: str, object_key: str, signer: Ed25519PrivateKey
) -> bytes:
    body = msgspec.msgpack.encode(document)
    return struct.pack("<I", len(body)) + body + signer.sign(_message(kind, vault_id, object_key, body))


def read_unverified(raw: bytes, into: type[T]) -> T:
    """The document, whoever signed it: to find out which key to verify with. Raises Damaged, FormatTooNew."""
    return decode(_split(raw)[0], into)


def read_signed(kind: str, raw: bytes, into: type[T], *, vault_id: str, object_key: str, public: Ed25519PublicKey) -> T:
    """Raises Damaged (not such a document), FormatTooNew, NotTrusted (the signature does not hold)."""
    body, signature = _split(raw)
    try:
        public.verify(signature, _message(kind, vault_id, object_key, body))
    except InvalidSignature as error:
        raise NotTrusted(f"The signature of {object_key} does not hold.") from error
    return decode(body, into)


def decode(body: bytes | memoryview, into: type[T]) -> T:
    """A msgpack document with a field `v`. Raises FormatTooNew for a later version, Damaged for anything else."""
    try:
        version = msgspec.msgpack.decode(body, type=_Versioned).v
        if version < FORMAT_VERSION:
            raise Damaged("A document of the vault does not say a format version that exists.")
        if version > FORMAT_VERSION:
            raise FormatTooNew(
                f"This part of the vault has format version {version}; this program knows {FORMAT_VERSION}."
            )
        return msgspec.msgpack.decode(body, type=into)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"A document of the vault is not what it should be ({error}).") from error


def _split(raw: bytes) -> tuple[bytes, bytes]:
    if len(raw) < 4 + SIGNATURE_SIZE:
        raise Damaged("A signed document of the vault is cut short.")
    (length,) = struct.unpack_from("<I", raw)
    if length > MAX_BODY or len(raw) != 4 + length + SIGNATURE_SIZE:
        raise Damaged("A signed document of the vault has a wrong length.")
    return raw[4 : 4 + length], raw[4 + length :]


def _message(kind: str, vault_id: str, object_key: str, body: bytes) -> bytes:
    return b"stateward " + kind.encode() + b" v1\0" + uuid_bytes(vault_id) + joined(object_key.encode()) + body
