"""The first objects of a vault, and its newest configuration as hosts get it at enrolment."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.vault import names
from common.vault.reading import expect_sha256, read_matching
from common.vault.store import Store
from common.vault.vaults import create_vault
from coordinator.clock import Clock


@dataclass(frozen=True, slots=True)
class MadeVault:
    """`vault.json` and the newest `config`, whole."""

    vault_object: bytes
    config_key: str
    config_object: bytes
    config_seq: int


def write_vault(store: Store, *, vault_id: str, name: str, signer: Ed25519PrivateKey, clock: Clock) -> MadeVault:
    """May be repeated: what is there already and is ours counts as written."""
    vault = create_vault(store, vault_id=vault_id, name=name, signer=signer, clock=clock)
    key = names.config(vault.config.seq)
    return MadeVault(
        vault_object=store.get(names.VAULT),
        config_key=key,
        config_object=read_matching(store, key, expect_sha256(key, vault.config_sha256)),
        config_seq=vault.config.seq,
    )
