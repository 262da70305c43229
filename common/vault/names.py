"""Keys of the vault's objects: one function a kind, so that no other code puts a key together."""

from __future__ import annotations

from common.ids import is_ulid, is_uuid

VAULT = "vault.json"


def config(seq: int) -> str:
    """Ten digits, so that the order of keys is the order of `seq`."""
    return f"config/{seq:010d}"


def host_record(host: str, ulid: str) -> str:
    return f"hosts/{_uuid(host)}/{_ulid(ulid)}"


def wrapping(host: str, key_id: str, ulid: str) -> str:
    return f"keys/{_uuid(host)}/{_hex(key_id)}/{_ulid(ulid)}"


def pack(host: str, sha256: bytes) -> str:
    return f"packs/{_uuid(host)}/{sha256.hex()}"


def index(host: str, ulid: str) -> str:
    return f"index/{_uuid(host)}/{_ulid(ulid)}"


def page(host: str, sha256: bytes) -> str:
    return f"lists/{_uuid(host)}/{sha256.hex()}"


def point(host: str, ulid: str) -> str:
    return f"points/{_uuid(host)}/{_ulid(ulid)}"


def state(host: str, point_id: str, ulid: str) -> str:
    return f"state/{_uuid(host)}/{_ulid(point_id)}/{_ulid(ulid)}"


def lease(host: str, ulid: str) -> str:
    return f"leases/{_uuid(host)}/{_ulid(ulid)}"


def last(key: str) -> str:
    """The last component of a key."""
    return key.rpartition("/")[2]


def _uuid(text: str) -> str:
    if not is_uuid(text):
        raise ValueError(f"not a host id: {text!r}")
    return text


def _ulid(text: str) -> str:
    if not is_ulid(text):
        raise ValueError(f"not a ULID: {text!r}")
    return text


def _hex(text: str) -> str:
    if not text or set(text) - set("0123456789abcdef"):
        raise ValueError(f"not a key id: {text!r}")
    return text
