"""Blocks: fingerprint, compress, seal, name, and open again.

V4: plain bytes never reach a store. `seal` is the only way from plain bytes to a `SealedBlock`, and packs take nothing
else.

Why the nonce may be zero: `key = BLAKE3(K_block, msg)` and `sealed = AES-256-GCM(key, 0, msg)`, so a key is a function
of *everything* that is encrypted with it, the mode byte included; two different messages under one key would be a
collision of keyed BLAKE3. Were the mode byte outside `msg`, a `.zst` file that is stored raw and its decompressed
original would share a key and a nonce (`tests/unit/vault/test_blocks.py` shows both cases).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.errors import Damaged
from common.ids import uuid_bytes
from common.vault.derive import KEY_SIZE, DomainKeys
from common.vault.store import Buffer

RAW = b"\x00"
ZSTD = b"\x01"
NONCE = bytes(12)
MAX_PLAIN = 4 * 1024 * 1024
OVERHEAD = 1 + 16
"""Bytes that sealing adds at most: mode byte and tag."""
MAX_SEALED = MAX_PLAIN + OVERHEAD

_local = threading.local()


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """Bytes that may go to a store, and what opens them again."""

    id: bytes
    """BLAKE3 of `data`: whoever has the bytes can check them without a key."""
    key: bytes = field(repr=False)
    data: bytes = field(repr=False)
    plain_size: int = 0


def codec_id(level: int) -> str:
    """Library version and level: output differs between libzstd versions, so both are one decision of the vault."""
    return f"zstd-{'.'.join(map(str, zstandard.ZSTD_VERSION))}-l{level}"


def codec_level(codec: str) -> int:
    """The level in a codec id. Raises ValueError when it is not one of ours."""
    name, _, level = codec.rpartition("-l")
    if not name.startswith("zstd-") or not level.isdecimal():
        raise ValueError(f"not a codec: {codec!r}")
    return int(level)


def fingerprint(plain: Buffer, keys: DomainKeys) -> bytes:
    return blake3(plain, key=keys.fingerprint).digest()


def block_aad(vault_id: str) -> bytes:
    return b"stateward block v1" + uuid_bytes(vault_id)


def seal(plain: Buffer, keys: DomainKeys, *, aad: bytes, level: int) -> SealedBlock:
    """Seal up to 4 MiB of plain bytes; `plain` is not kept. Equal input gives equal output for one libzstd and level.

    Releases the interpreter lock in all its heavy steps; may run in many threads. Raises ValueError for a larger block,
    which no reader would open.
    """
    if len(plain) > MAX_PLAIN:
        raise ValueError(f"a block of {len(plain)} bytes")
    packed = _compressor(level).compress(plain)
    message = ZSTD + packed if len(packed) < len(plain) else b"".join((RAW, plain))
    key = blake3(message, key=keys.block).digest()
    data = AESGCM(key).encrypt(NONCE, message, aad)
    return SealedBlock(id=blake3(data).digest(), key=key, data=data, plain_size=len(plain))


def open_block(data: Buffer, key: bytes, block_id: bytes, *, aad: bytes) -> bytes:
    """Plain bytes of a sealed block.

    Raises:
        Damaged: the bytes are not those of the id, or do not open with this key.
    """
    if len(key) != KEY_SIZE or len(data) > MAX_SEALED:
        raise Damaged(f"Block {block_id.hex()[:16]} has a key or a size that blocks do not have.")
    if blake3(data).digest() != block_id:
        raise Damaged(f"Block {block_id.hex()[:16]} does not have the bytes of its name.")
    try:
        message = AESGCM(key).decrypt(NONCE, data, aad)
    except InvalidTag as error:
        raise Damaged(f"Block {block_id.hex()[:16]} cannot be opened with its key.") from error
    mode, payload = message[:1], memoryview(message)[1:]
    if mode == RAW:
        return bytes(payload)
    if mode != ZSTD:
        raise Damaged(f"Block {block_id.hex()[:16]} has an unknown mode.")
    return unpack(payload)


def unpack(payload: Buffer) -> bytes:
    """One zstd frame with its content size (at most 4 MiB, so that a hostile frame cannot fill memory)."""
    try:
        size = zstandard.frame_content_size(payload)
        if not 0 < size <= MAX_PLAIN:
            raise Damaged("A block says that it is larger than blocks may be.")
        return _decompressor().decompress(payload, max_output_size=MAX_PLAIN, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged("A block does not decompress.") from error


def _compressor(level: int) -> zstandard.ZstdCompressor:
    made: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in made:
        made[level] = zstandard.ZstdCompressor(
            level=level, write_content_size=True, write_checksum=False, write_dict_id=False
        )
    return made[level]


def _decompressor() -> zstandard.ZstdDecompressor:
    made: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if made is None:
        made = _local.decompressor = zstandard.ZstdDecompressor()
    return made
