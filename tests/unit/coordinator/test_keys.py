"""The coordinator's key files: made once, of their owner alone, damaged ones named."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from common.errors import Damaged
from common.ids import new_uuid
from common.privatefiles import create_private, write_private
from coordinator.keys import open_keys


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    first, again = open_keys(tmp_path), open_keys(tmp_path)
    domain = new_uuid()
    assert first.public.public_bytes_raw() == again.public.public_bytes_raw()
    assert first.domain_secret(domain) == again.domain_secret(domain) != first.domain_secret(new_uuid())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) & 0o077 == 0


def test_a_damaged_key_is_named_and_never_replaced(tmp_path: Path) -> None:
    open_keys(tmp_path)
    (tmp_path / "keys" / "signing.key").write_text("c2hvcnQ=")
    with pytest.raises(Damaged, match=r"signing\.key"):
        open_keys(tmp_path)
    assert (tmp_path / "keys" / "signing.key").read_text() == "c2hvcnQ="


def test_a_file_is_written_once_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "f"
    assert create_private(file, b"one")
    assert not create_private(file, b"two")
    assert file.read_bytes() == b"one"
    write_private(file, b"three")
    assert file.read_bytes() == b"three"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_answers_open_in_their_own_place_alone(tmp_path: Path) -> None:
    keys = open_keys(tmp_path / "a")
    sealed = keys.seal_answer(b"credentials", context="x")
    assert b"credentials" not in sealed
    assert keys.open_answer(sealed, context="x") == b"credentials"
    assert keys.open_answer(sealed, context="y") is None
    assert open_keys(tmp_path / "b").open_answer(sealed, context="x") is None
