"""What enrolment pins of the vault, once it was checked: `vault.json` and the newest `config`, as the coordinator gave them.

A job's credentials cannot read either from the bucket, so both are kept whole beside the pinned values.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from common.errors import NotTrusted
from common.privatefiles import write_private
from common.secret import Secret
from common.signing import load_public_key, unb64
from common.vault import names
from common.vault.documents import ConfigDocument
from common.vault.keys import key_id_of
from common.vault.signed import read_signed
from common.vault.vaults import OpenVault, parse_vault_document
from worker.enrol import Pins
from worker.pinned import PinnedVault, load_pinned, save_pinned, vault_folder
from worker.platform import this_host

_VAULT_FILE = "vault.json"
_CONFIG_FILE = "config"


def pin_enrolment(state: Path, pins: Pins) -> None:
    """Check and keep; called again with the same after a crash.

    Raises:
        NotTrusted: vault or config are not signed with the key of the credentials file, or of another vault.
        Damaged, FormatTooNew.
    """
    reply = pins.reply
    vault_raw, config_raw = unb64(reply.vault_object), unb64(reply.config_object)
    vault = _check(
        vault_raw, config_raw, vault_id=reply.vault.vault_id, seq=reply.config_seq, signer=pins.coordinator_key
    )
    pinned = PinnedVault(
        url=reply.vault.url,
        host_id=reply.host_id,
        host_name=this_host().facts().hostname,
        key_id=key_id_of(pins.recovery_public),
        recovery_public=pins.recovery_public,
        signing=pins.signing,
        host_secret=pins.host_secret,
        domain_id=reply.domain.domain_id,
        domain_secret=Secret(unb64(reply.domain.secret)),
        domain_policy=reply.domain_policy,
        pin=vault.pin,
    )
    folder = vault_folder(state, pinned.vault_id)
    write_private(folder / _VAULT_FILE, vault_raw)
    write_private(folder / _CONFIG_FILE, config_raw)
    save_pinned(state, pinned)


def open_pinned(state: Path, vault_id: str) -> tuple[PinnedVault, OpenVault]:
    """The pinned values, and the vault as it was pinned. Raises NotInitialised, Damaged, NotTrusted."""
    pinned = load_pinned(state, vault_id)
    folder = vault_folder(state, vault_id)
    vault = _check(
        (folder / _VAULT_FILE).read_bytes(),
        (folder / _CONFIG_FILE).read_bytes(),
        vault_id=vault_id,
        seq=pinned.pin.config_seq,
        signer=pinned.pin.signer,
    )
    if vault.config_sha256 != pinned.pin.config_sha256:
        raise NotTrusted(f"The config kept for vault {vault_id} is not the pinned one.")
    return pinned, vault


def _check(vault_raw: bytes, config_raw: bytes, *, vault_id: str, seq: int, signer: bytes) -> OpenVault:
    document = parse_vault_document(vault_raw)
    if document.vault != vault_id:
        raise NotTrusted(f"The coordinator gave another vault ({document.vault}) than the credentials file names.")
    if seq == 1 and base64.b64decode(document.signer) != signer:
        raise NotTrusted("The vault names another signer than the credentials file.")
    config = read_signed(
        "config",
        config_raw,
        ConfigDocument,
        vault_id=vault_id,
        object_key=names.config(seq),
        public=load_public_key(signer),
    )
    if config.seq != seq:
        raise NotTrusted(f"The vault's config says that it is {config.seq}, not {seq}.")
    document_sha256 = hashlib.sha256(vault_raw).digest()
    if seq == 1 and config.prev_sha256 != document_sha256:
        raise NotTrusted("The vault's first config names another vault.json.")
    return OpenVault(
        document=document,
        document_sha256=document_sha256,
        config=config,
        config_sha256=hashlib.sha256(config_raw).digest(),
    )
