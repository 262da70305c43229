"""A thief of the host learns nothing from the block cache that he cannot already write down."""

from __future__ import annotations

import os
import secrets
import sqlite3
from typing import TYPE_CHECKING

import pytest

from common.secret import Secret
from common.vault.blocks import block_aad, fingerprint, seal
from common.vault.derive import DomainKeys
from worker.blockcache import BlockCache

if TYPE_CHECKING:
    from pathlib import Path

VAULT = "0b6a3f0e-5d4c-4b2a-9c1d-2e3f4a5b6c7d"
KEYS = DomainKeys.derive(vault_id=VAULT, domain_id=VAULT, secret=Secret(bytes(32)))
OTHER = DomainKeys.derive(vault_id=VAULT, domain_id=VAULT, secret=Secret(b"\1" * 32))


def test_neither_fingerprint_nor_key_stands_in_the_file(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, "codec")
    blocks = [seal(secrets.token_bytes(500), KEYS, aad=block_aad(VAULT), level=1) for _ in range(600)]
    prints = [fingerprint(secrets.token_bytes(500), KEYS) for _ in blocks]
    for print_, block in zip(prints, blocks, strict=True):
        cache.put(KEYS, print_, block.id, block.key)
    for print_, block in zip(prints, blocks, strict=True):
        assert cache.find(KEYS, print_) == (block.id, block.key)
    cache.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for print_, block in zip(prints, blocks, strict=True):
        assert block.id in stored
        assert print_ not in stored
        assert print_[:8] not in stored
        assert block.key not in stored
        assert block.key[:8] not in stored
    for path in tmp_path.iterdir():
        assert os.stat(path).st_mode & 0o077 == 0  # noqa: PTH116


def test_it_is_found_again_and_only_with_the_same_keys(tmp_path: Path) -> None:
    print_ = secrets.token_bytes(32)
    cache = BlockCache(tmp_path, "codec")
    cache.put(KEYS, print_, b"i" * 32, b"k" * 32)
    cache.close()
    again = BlockCache(tmp_path, "codec")
    assert again.find(KEYS, print_) == (b"i" * 32, b"k" * 32)
    assert again.find(OTHER, print_) is None
    assert again.find(KEYS, secrets.token_bytes(32)) is None
    again.close()
    other_codec = BlockCache(tmp_path, "another")
    assert other_codec.find(KEYS, print_) is None
    other_codec.close()


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 300, b"SQLite format 3\0" + bytes(4080)])
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    cache = BlockCache(tmp_path, "codec")
    cache.put(KEYS, b"p" * 32, b"i" * 32, b"k" * 32)
    cache.close()
    (path,) = tmp_path.glob("*.sqlite")
    path.write_bytes(damage)
    again = BlockCache(tmp_path, "codec")
    assert again.find(KEYS, b"p" * 32) is None
    again.put(KEYS, b"q" * 32, b"i" * 32, b"k" * 32)
    assert again.find(KEYS, b"q" * 32) == (b"i" * 32, b"k" * 32)
    again.close()


def test_a_row_of_another_size_is_no_entry(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, "codec")
    cache.put(KEYS, b"p" * 32, b"i" * 32, b"k" * 32)
    cache.close()
    (path,) = tmp_path.glob("*.sqlite")
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE blocks SET masked = x'00'")
    database.close()
    again = BlockCache(tmp_path, "codec")
    assert again.find(KEYS, b"p" * 32) is None
    again.close()
