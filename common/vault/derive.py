"""Keys of a dedup domain: K_x = BLAKE3.derive_key("stateward v1 <x>", vault id ‖ domain id ‖ secret).

A later format version means other contexts, so that no key is used by two versions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from blake3 import blake3

from common.ids import uuid_bytes
from common.secret import Secret

KEY_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainKeys:
    """All keys of one domain. The secrets are not shown by repr."""

    domain_id: str
    fingerprint: bytes = field(repr=False)
    block: bytes = field(repr=False)
    index: bytes = field(repr=False)
    gear: bytes = field(repr=False)
    cache: bytes = field(repr=False)

    @classmethod
    def derive(cls, *, vault_id: str, domain_id: str, secret: Secret[bytes]) -> DomainKeys:
        """`secret` has 32 bytes; the host-only secret has the host's UUID as domain id."""
        if len(secret.reveal()) != KEY_SIZE:
            raise ValueError("a domain secret has 32 bytes")
        material = uuid_bytes(vault_id) + uuid_bytes(domain_id) + secret.reveal()
        keys = {name: derive_key(name, material) for name in ("fingerprint", "block", "index", "gear", "cache")}
        return cls(domain_id=domain_id, **keys)

    @property
    def gear_seed(self) -> int:
        """63 bits: the first 8 bytes of `K_gear`, little-endian, without the highest bit (pyfastcdc shifts a seed left by
        one and fails where that does not fit 64 bits)."""
        return int.from_bytes(self.gear[:8], "little") & (2**63 - 1)


def derive_key(name: str, material: bytes) -> bytes:
    """32 bytes for the purpose `name`."""
    return blake3(material, derive_key_context=f"stateward v1 {name}").digest()


def joined(*parts: bytes) -> bytes:
    """Parts, each after its length (u32, little-endian): no two lists of parts give the same bytes."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)
