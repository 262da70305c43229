"""What this host has pinned of a vault, at `init` or enrolment: `vaults/<vault id>/pinned.json` in the state folder, 0600.

A backup takes recovery key, escrow keys, signer, domains' secrets and newest config from here and never from the bucket
or the network: who can write there would read, or forge, every later point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import Damaged, FormatTooNew, NotInitialised, NotTrusted
from common.privatefiles import make_private_folder, write_private
from common.secret import Secret
from common.vault.blocks import codec_id, codec_level
from common.vault.derive import DomainKeys
from common.vault.keys import HostKeys
from common.vault.vaults import OpenVault, Pin
from worker.upload import Sealing

_FILE = "pinned.json"
_VERSION = 1


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    v: int = _VERSION
    vault: str
    url: str
    host: str
    host_name: str
    key_id: str
    recovery_public: bytes
    escrow_publics: tuple[bytes, ...] = ()
    signing: bytes
    host_secret: bytes
    domain: str
    domain_secret: bytes
    domain_policy: str
    signer: bytes
    config_seq: int
    config_sha256: bytes
    vault_signer: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedVault:
    """One host in one vault. Secrets are not shown."""

    url: str
    host_id: str
    host_name: str
    key_id: str
    recovery_public: bytes
    escrow_publics: tuple[bytes, ...] = ()
    signing: Secret[bytes]
    host_secret: Secret[bytes]
    domain_id: str
    domain_secret: Secret[bytes]
    domain_policy: str = "vault"
    """`vault`: blocks are shared with the hosts of the domain; `host`: nothing is."""
    pin: Pin
    vault_signer: Secret[bytes] | None = None
    """Standalone: signs `state` objects."""

    @classmethod
    def of(cls, keys: HostKeys, *, url: str, host_name: str, vault: OpenVault, domain_policy: str) -> PinnedVault:
        """What a fresh enrolment or `init` pins; `keys` has exactly one shared domain."""
        ((domain_id, domain_secret),) = keys.domains.items()
        check_domain(domain_id, host_id=keys.host_id, vault_id=keys.vault_id)
        return cls(
            url=url,
            host_id=keys.host_id,
            host_name=host_name,
            key_id=keys.key_id,
            recovery_public=keys.recovery_public,
            signing=keys.signing,
            host_secret=keys.host_secret,
            domain_id=domain_id,
            domain_secret=domain_secret,
            domain_policy=domain_policy,
            pin=vault.pin,
            vault_signer=keys.vault_signer,
        )

    @property
    def vault_id(self) -> str:
        return self.pin.vault_id

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.signing.reveal())

    @property
    def signer_key(self) -> Ed25519PrivateKey | None:
        return None if self.vault_signer is None else Ed25519PrivateKey.from_private_bytes(self.vault_signer.reveal())

    @property
    def content_domain(self) -> str:
        """The domain that files go to, unless they are secrets by name."""
        return self.host_id if self.domain_policy == "host" else self.domain_id

    def sealing(self, codec: str) -> Sealing:
        """How this host makes blocks: in the vault's codec, as far as this library can.

        A worker with another libzstd uses its own codec at the vault's level (its blocks differ, nothing breaks).
        """
        level = codec_level(codec)
        secrets = {self.host_id: self.host_secret}
        if self.domain_policy != "host":
            secrets[self.domain_id] = self.domain_secret
        domains = {
            domain: DomainKeys.derive(vault_id=self.vault_id, domain_id=domain, secret=secret)
            for domain, secret in secrets.items()
        }
        return Sealing(
            vault_id=self.vault_id, host_id=self.host_id, domains=domains, codec=codec_id(level), level=level
        )

    def seen(self, vault: OpenVault) -> PinnedVault:
        """With the newest config that was verified; nothing older is taken from then on."""
        return replace(self, pin=vault.pin)


def check_domain(domain_id: str, *, host_id: str, vault_id: str) -> None:
    """Raises NotTrusted: under the host's own id, a coordinator's secret would replace the host-only one."""
    if domain_id in {host_id, vault_id}:
        raise NotTrusted(f"The shared domain {domain_id} has the id of this host or vault.")


def vault_folder(state: Path, vault_id: str) -> Path:
    """Everything this host keeps of one vault: pinned values, journal, caches."""
    return make_private_folder(make_private_folder(state / "vaults") / vault_id)


def save_pinned(state: Path, pinned: PinnedVault) -> None:
    stored = _Stored(
        vault=pinned.vault_id,
        url=pinned.url,
        host=pinned.host_id,
        host_name=pinned.host_name,
        key_id=pinned.key_id,
        recovery_public=pinned.recovery_public,
        escrow_publics=pinned.escrow_publics,
        signing=pinned.signing.reveal(),
        host_secret=pinned.host_secret.reveal(),
        domain=pinned.domain_id,
        domain_secret=pinned.domain_secret.reveal(),
        domain_policy=pinned.domain_policy,
        signer=pinned.pin.signer,
        config_seq=pinned.pin.config_seq,
        config_sha256=pinned.pin.config_sha256,
        vault_signer=None if pinned.vault_signer is None else pinned.vault_signer.reveal(),
    )
    write_private(vault_folder(state, pinned.vault_id) / _FILE, msgspec.json.encode(stored))


def load_pinned(state: Path, vault_id: str) -> PinnedVault:
    """Raises NotInitialised, Damaged, FormatTooNew."""
    path = state / "vaults" / vault_id / _FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise NotInitialised(f"This host has pinned nothing of vault {vault_id} (looked in {state}).") from error
    try:
        stored = msgspec.json.decode(raw, type=_Stored)
    except msgspec.MsgspecError as error:
        raise Damaged(
            f"{path} cannot be read ({error}).",
            next_step="Restore it from a backup of the state folder, or run `init --take-over` with the passphrase.",
        ) from error
    if stored.v > _VERSION:
        raise FormatTooNew(f"{path} has version {stored.v}; this program knows {_VERSION}.")
    check_domain(stored.domain, host_id=stored.host, vault_id=stored.vault)
    return PinnedVault(
        url=stored.url,
        host_id=stored.host,
        host_name=stored.host_name,
        key_id=stored.key_id,
        recovery_public=stored.recovery_public,
        escrow_publics=stored.escrow_publics,
        signing=Secret(stored.signing),
        host_secret=Secret(stored.host_secret),
        domain_id=stored.domain,
        domain_secret=Secret(stored.domain_secret),
        domain_policy=stored.domain_policy,
        pin=Pin(
            vault_id=stored.vault,
            signer=stored.signer,
            config_seq=stored.config_seq,
            config_sha256=stored.config_sha256,
        ),
        vault_signer=None if stored.vault_signer is None else Secret(stored.vault_signer),
    )


def pinned_binding(pinned: PinnedVault, codec: str) -> bytes:
    """16 bytes that change when the local tree cache must not be used: another vault, host, domain or codec."""
    parts = (pinned.vault_id, pinned.host_id, pinned.content_domain, codec)
    return blake3("\0".join(parts).encode() + pinned.recovery_public).digest(16)
