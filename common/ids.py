"""Identities: UUIDs for vaults, hosts, domains and jobs; ULIDs for objects that are written in order.

As text a UUID is lower case with hyphens and a ULID 26 characters of Crockford's base 32 (upper case). Into derivations,
AAD and `info` both enter as 16 raw bytes. ULIDs order by time but decide nothing.
"""

from __future__ import annotations

import re
import uuid
from typing import NewType

from ulid import ULID

VaultId = NewType("VaultId", str)
HostId = NewType("HostId", str)
DomainId = NewType("DomainId", str)
JobId = NewType("JobId", str)
PointId = NewType("PointId", str)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_uuid() -> str:
    return str(uuid.uuid4())


def new_ulid() -> str:
    return str(ULID())


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def is_ulid(text: str) -> bool:
    return _ULID.fullmatch(text) is not None


def uuid_bytes(text: str) -> bytes:
    """16 bytes. Raises ValueError unless `text` has exactly the canonical form."""
    if not is_uuid(text):
        raise ValueError(f"not a UUID: {text!r}")
    return uuid.UUID(text).bytes


def uuid_text(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))


def ulid_bytes(text: str) -> bytes:
    """16 bytes. Raises ValueError unless `text` has exactly the canonical form."""
    if not is_ulid(text):
        raise ValueError(f"not a ULID: {text!r}")
    return ULID.from_str(text).bytes


def ulid_text(raw: bytes) -> str:
    return str(ULID.from_bytes(raw))
