"""The format stays what it is: every step recomputed and compared with the committed answers."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import Damaged, GrantRefused, NotTrusted, WrongPassphrase
from common.secret import Secret
from common.vault import hpke, keys, names
from common.vault.blocks import block_aad, open_block
from common.vault.index import read_index
from common.vault.pages import PageKind, read_page
from common.vault.points import StoredPoint

if TYPE_CHECKING:
    from types import ModuleType


def _generator() -> ModuleType:
    path = Path(__file__).with_name("make_vectors.py")
    spec = importlib.util.spec_from_file_location("make_vectors", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = _generator()
VECTORS: dict[str, Any] = json.loads(made.VECTORS.read_text(encoding="utf-8"))


def test_every_vector_is_tested() -> None:
    assert set(VECTORS) == {*made.SECTIONS, "frozen", "opened"}


@pytest.mark.parametrize("section", made.SECTIONS)
def test_a_step_gives_the_known_answer(section: str) -> None:
    assert json.loads(json.dumps(made.SECTIONS[section]())) == VECTORS[section]


def test_what_was_sealed_before_opens() -> None:
    assert json.loads(json.dumps(made.opened(VECTORS["frozen"]))) == VECTORS["opened"]


def test_the_public_key_is_that_of_the_reference_expansion() -> None:
    """X-Wing: SHAKE256(seed) is the ML-KEM seed ‖ the X25519 key; the public key ends in the X25519 one."""
    import hashlib

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    expanded = hashlib.shake_256(made.SEED.reveal()).digest(96)
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:]).public_key().public_bytes_raw()
    public = hpke.public_key(made.SEED)
    assert (len(public), public[-32:]) == (1216, x25519)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_block_does_not_open_in_another_vault_or_changed() -> None:
    vector = VECTORS["blocks"]["raw"]
    data, key, name = (bytes.fromhex(vector[field]) for field in ("sealed", "key", "id"))
    assert open_block(data, key, name, aad=block_aad(made.VAULT)).hex() == vector["plain"]
    with pytest.raises(Damaged):
        open_block(data, key, name, aad=block_aad(made.DOMAIN))
    for at in (0, len(data) // 2, len(data) - 1):
        with pytest.raises(Damaged):
            open_block(_flipped(data, at), key, name, aad=block_aad(made.VAULT))


def test_an_index_opens_only_under_its_own_key() -> None:
    data = bytes.fromhex(VECTORS["indexes"]["data"])
    with pytest.raises(Damaged):
        read_index(data, object_key=names.index(made.HOST, made.ULID_B), keys=made.domain_keys())
    for at in (6, 60, len(data) - 1):
        with pytest.raises(Damaged):
            read_index(_flipped(data, at), object_key=VECTORS["indexes"]["object"], keys=made.domain_keys())


def test_a_page_is_known_by_its_bytes() -> None:
    page = VECTORS["pages"]["packs"]
    with pytest.raises(Damaged):
        read_page(page["key"], _flipped(bytes.fromhex(page["data"]), 50), PageKind.PACKS)


@pytest.mark.parametrize("kind", PageKind)
def test_a_page_counts_as_what_it_is_alone(kind: PageKind) -> None:
    for wanted in set(PageKind) - {kind}:
        page = VECTORS["pages"][kind.name.lower()]
        with pytest.raises(Damaged, match="kind"):
            read_page(page["key"], bytes.fromhex(page["data"]), wanted)


def test_a_point_changed_anywhere_does_not_hold() -> None:
    raw = base64.b64decode(VECTORS["frozen"]["point"])
    public, key = made.SIGNING.public_key(), names.point(made.HOST, made.ULID_A)
    for at in (len(raw) - 1, len(raw) // 2, 400, 20, 4):
        with pytest.raises((Damaged, NotTrusted)):
            StoredPoint.parse(_flipped(raw, at)).verify(public, vault_id=made.VAULT, object_key=key)
    with pytest.raises(NotTrusted):
        StoredPoint.parse(raw).verify(public, vault_id=made.VAULT, object_key=names.point(made.HOST, made.ULID_B))
    with pytest.raises(NotTrusted):
        StoredPoint.parse(raw).verify(public, vault_id=made.DOMAIN, object_key=key)


def test_a_wrapping_opens_only_in_its_place_and_with_its_passphrase() -> None:
    raw = base64.b64decode(VECTORS["frozen"]["wrapping"])
    with pytest.raises(WrongPassphrase):
        keys.unwrap(raw, made.PASSPHRASE, vault_id=made.VAULT, host_id=made.DOMAIN)
    with pytest.raises(WrongPassphrase):
        keys.unwrap(raw, Secret("another horse battery staple"), vault_id=made.VAULT, host_id=made.HOST)


def test_a_wrapping_whose_check_was_changed_is_not_decrypted() -> None:
    """Else a ciphertext made to open under many keys would try many passphrases at once."""
    raw = base64.b64decode(VECTORS["frozen"]["wrapping"])
    check = bytes.fromhex(VECTORS["opened"]["argon2_key_and_check"][1])
    with pytest.raises(WrongPassphrase):
        keys.unwrap(raw.replace(check, _flipped(check, 0)), made.PASSPHRASE, vault_id=made.VAULT, host_id=made.HOST)


@pytest.mark.parametrize(
    "changed",
    [
        {"vault_id": made.HOST},
        {"job_id": made.HOST},
        {"source_host": made.DOMAIN},
        {"point": made.ULID_B},
        {"target_host": made.HOST},
        {"destination": None},
        {"destination": "/srv"},
        {"conflict": "overwrite"},
        {"includes": ()},
        {"includes": ("etc/**home/*/.ssh",)},
        {"seed": made.SEED},
        {"source": Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_grant_opens_for_its_restore_alone(changed: dict[str, Any]) -> None:
    with pytest.raises(GrantRefused):
        made.open_grant(VECTORS["frozen"], **changed)


def test_hpke_is_bound_to_its_info() -> None:
    with pytest.raises(NotTrusted):
        hpke.open_sealed(made.SEED, base64.b64decode(VECTORS["frozen"]["hpke"]), info=b"another answer")
