"""One key never seals two messages: the mode byte is inside, and everything that is sealed enters the key."""

from __future__ import annotations

import pytest
import zstandard
from blake3 import blake3

from common.errors import Damaged
from common.secret import Secret
from common.vault.blocks import block_aad, codec_id, codec_level, fingerprint, open_block, seal
from common.vault.derive import DomainKeys

VAULT = "0b6a3f0e-5d4c-4b2a-9c1d-2e3f4a5b6c7d"
OTHER_VAULT = "1b6a3f0e-5d4c-4b2a-9c1d-2e3f4a5b6c7d"
DOMAIN = "2b6a3f0e-5d4c-4b2a-9c1d-2e3f4a5b6c7d"
OTHER_DOMAIN = "3b6a3f0e-5d4c-4b2a-9c1d-2e3f4a5b6c7d"
AAD = block_aad(VAULT)


def keys(*, vault: str = VAULT, domain: str = DOMAIN, secret: bytes = bytes(32)) -> DomainKeys:
    return DomainKeys.derive(vault_id=vault, domain_id=domain, secret=Secret(secret))


def compressed(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_checksum=False).compress(plain)


def test_a_stored_raw_zst_file_and_its_original_have_different_keys() -> None:
    """Were the mode byte outside of what enters the key, both would seal the very same payload under one key."""
    original = b"some text that compresses well " * 400
    archive = compressed(original)
    one = seal(original, keys(), aad=AAD, level=1)
    two = seal(archive, keys(), aad=AAD, level=1)
    assert len(one.data) == len(two.data) == len(archive) + 17
    assert one.key != two.key
    assert one.id != two.id
    assert blake3(archive, key=keys().block).digest() not in {one.key, two.key}
    assert open_block(one.data, one.key, one.id, aad=AAD) == original
    assert open_block(two.data, two.key, two.id, aad=AAD) == archive


def test_equal_content_gives_an_equal_block_and_a_changed_bit_another() -> None:
    plain = bytes(range(256)) * 20
    block = seal(plain, keys(), aad=AAD, level=1)
    assert seal(plain, keys(), aad=AAD, level=1) == block
    changed = bytearray(plain)
    changed[77] ^= 1
    assert seal(changed, keys(), aad=AAD, level=1).key != block.key


@pytest.mark.parametrize(
    "other",
    [keys(vault=OTHER_VAULT), keys(domain=OTHER_DOMAIN), keys(secret=b"\1" + bytes(31))],
    ids=["vault", "domain", "secret"],
)
def test_another_vault_domain_or_secret_gives_other_keys(other: DomainKeys) -> None:
    plain = b"x" * 1000
    assert seal(plain, other, aad=AAD, level=1).key != seal(plain, keys(), aad=AAD, level=1).key
    assert fingerprint(plain, other) != fingerprint(plain, keys())
    mine = {keys().fingerprint, keys().block, keys().index, keys().gear, keys().cache}
    theirs = {other.fingerprint, other.block, other.index, other.gear, other.cache}
    assert len(mine | theirs) == 10


def test_a_block_of_another_vault_does_not_open() -> None:
    block = seal(b"x" * 1000, keys(), aad=AAD, level=1)
    with pytest.raises(Damaged):
        open_block(block.data, block.key, block.id, aad=block_aad(OTHER_VAULT))


def test_what_does_not_shrink_is_stored_raw() -> None:
    archive = compressed(b"some text " * 1000)
    assert len(seal(archive, keys(), aad=AAD, level=1).data) == len(archive) + 17
    assert len(seal(b"a" * 1000, keys(), aad=AAD, level=1).data) < 100


def test_the_gear_seed_is_one_that_the_cutter_takes() -> None:
    """pyfastcdc fails for a seed of 64 bits whose highest is set: every second vault."""
    from common.vault.cut import Cutter
    from common.vault.documents import Chunking

    seeds = [keys(secret=number.to_bytes(32, "big")).gear_seed for number in range(64)]
    assert len(set(seeds)) == 64
    for seed in (*seeds, 2**63 - 1):
        cuts = list(Cutter(Chunking(), seed).cut(memoryview(bytes(600_000)), final=True))
        assert sum(length for _, length in cuts) == 600_000


def test_codecs_have_names() -> None:
    assert codec_level(codec_id(3)) == 3
    for wrong in ("", "zstd", "zstd-1.5.7-lx", "lz4-1.0-l1", "zstd-1.5.7-l-1"):
        with pytest.raises(ValueError, match="not a codec"):
            codec_level(wrong)
