"""The host's keys, and the passphrase that brings them back.

passphrase → Argon2id (RFC 9106; t=3, m=64 MiB, 4 lanes, fresh 16-byte salt) → AES-256-GCM makes a *wrapping* of all keys
that a rebuilt host or a recovery needs. Parameters are stored and capped when read, so that a planted wrapping cannot eat
the memory of the machine that tries it. Nonce 0 is right here because each Argon2id key, by its fresh salt, is used once.
AAD = vault ‖ host ‖ key id ‖ public key ‖ parameters: a wrapping moved to another place does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import struct
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from common.errors import ConfigInvalid, Damaged, PassphraseUnfit, WrongPassphrase
from common.ids import uuid_bytes
from common.secret import Secret
from common.signing import fingerprint
from common.vault import hpke
from common.vault.blocks import NONCE
from common.vault.derive import KEY_SIZE, joined
from common.vault.signed import FORMAT_VERSION, decode

MIN_PASSPHRASE = 16
MAX_PASSPHRASE_FILE = 4096
_SALT = 16
_MAX_ITERATIONS = 8
_MAX_MEMORY_KIB = 256 * 1024
_MAX_LANES = 16
_PRINTABLE = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeys:
    """Everything a host's wrapping holds. Secrets are not shown."""

    vault_id: str
    host_id: str
    recovery_seed: Secret[bytes]
    signing: Secret[bytes]
    """Ed25519 private key, 32 bytes."""
    host_secret: Secret[bytes]
    """The host-only secret: domain of the tree and of what nobody else may guess."""
    domains: dict[str, Secret[bytes]]
    """Shared domains: UUID → 32-byte secret."""
    vault_signer: Secret[bytes] | None = None
    """Standalone: the Ed25519 key that signs `config` and `state`."""
    vault_sha256: bytes
    """Of `vault.json`: who has the passphrase takes no planted one, and so no planted signer and no planted decision."""

    @property
    def recovery_public(self) -> bytes:
        return hpke.public_key(self.recovery_seed)

    @property
    def key_id(self) -> str:
        return key_id_of(self.recovery_public)

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.signing.reveal())

    @property
    def fingerprint(self) -> str:
        """What an operator compares before a key counts as saved."""
        return fingerprint(self.recovery_public)


class Argon2Parameters(msgspec.Struct, frozen=True, kw_only=True):
    iterations: int = 3
    memory_kib: int = 64 * 1024
    lanes: int = 4
    salt: bytes = b""

    def canonical(self) -> bytes:
        return struct.pack("<III", self.iterations, self.memory_kib, self.lanes) + self.salt


class Wrapping(msgspec.Struct, frozen=True, kw_only=True):
    """`keys/<host>/<key id>/<ulid>`: one wrapping; readers try all."""

    v: int = FORMAT_VERSION
    kind: str
    """`passphrase` or `escrow`."""
    vault: bytes
    host: bytes
    key_id: str
    public_key: bytes
    """Recovery public key, 1,216 bytes."""
    argon2: Argon2Parameters | None = None
    check: bytes = b""
    """By passphrase: the last 32 of the 64 bytes that Argon2id gives. AES-GCM does not commit to its key; this does."""
    sealed: bytes


class _Contents(msgspec.Struct, frozen=True, kw_only=True):
    v: int = FORMAT_VERSION
    recovery_seed: bytes
    signing: bytes
    host_secret: bytes
    domains: dict[str, bytes]
    vault_signer: bytes | None = None
    vault_sha256: bytes


def key_id_of(recovery_public: bytes) -> str:
    return hashlib.sha256(recovery_public).hexdigest()[:16]


def new_host_keys(
    *,
    vault_id: str,
    host_id: str,
    vault_sha256: bytes,
    domains: dict[str, Secret[bytes]],
    vault_signer: Secret[bytes] | None = None,
) -> HostKeys:
    return HostKeys(
        vault_id=vault_id,
        host_id=host_id,
        recovery_seed=Secret(secrets.token_bytes(hpke.SEED_SIZE)),
        signing=Secret(Ed25519PrivateKey.generate().private_bytes_raw()),
        host_secret=Secret(secrets.token_bytes(KEY_SIZE)),
        domains=domains,
        vault_signer=vault_signer,
        vault_sha256=vault_sha256,
    )


def wrap(keys: HostKeys, passphrase: Secret[str]) -> bytes:
    """The bytes of a wrapping object. Takes about 0.1 s and 64 MiB. Raises PassphraseUnfit."""
    check_passphrase(passphrase)
    parameters = Argon2Parameters(salt=secrets.token_bytes(_SALT))
    contents = msgspec.msgpack.encode(
        _Contents(
            recovery_seed=keys.recovery_seed.reveal(),
            signing=keys.signing.reveal(),
            host_secret=keys.host_secret.reveal(),
            domains={domain: secret.reveal() for domain, secret in keys.domains.items()},
            vault_signer=None if keys.vault_signer is None else keys.vault_signer.reveal(),
            vault_sha256=keys.vault_sha256,
        )
    )
    public = keys.recovery_public
    aad = _aad(keys.vault_id, keys.host_id, keys.key_id, public, parameters)
    key, check = _stretch(passphrase, parameters)
    sealed = AESGCM(key).encrypt(NONCE, contents, aad)
    return msgspec.msgpack.encode(
        Wrapping(
            kind="passphrase",
            vault=uuid_bytes(keys.vault_id),
            host=uuid_bytes(keys.host_id),
            key_id=keys.key_id,
            public_key=public,
            argon2=parameters,
            check=check,
            sealed=sealed,
        )
    )


def read_wrapping(raw: bytes) -> Wrapping:
    """Raises Damaged, FormatTooNew."""
    return decode(raw, Wrapping)


def unwrap(raw: bytes, passphrase: Secret[str], *, vault_id: str, host_id: str) -> HostKeys:
    """Raises WrongPassphrase (also when the wrapping was altered: the two cannot be told apart), Damaged."""
    wrapping = read_wrapping(raw)
    parameters = wrapping.argon2
    if wrapping.kind != "passphrase" or parameters is None:
        raise Damaged(f"The wrapping of key {wrapping.key_id} is not one by passphrase.")
    if (
        not 1 <= parameters.iterations <= _MAX_ITERATIONS
        or not 8 * parameters.lanes <= parameters.memory_kib <= _MAX_MEMORY_KIB
        or not 1 <= parameters.lanes <= _MAX_LANES
        or len(parameters.salt) != _SALT
    ):
        raise Damaged(f"The wrapping of key {wrapping.key_id} asks for parameters that are not allowed.")
    aad = _aad(vault_id, host_id, wrapping.key_id, wrapping.public_key, parameters)
    key, check = _stretch(passphrase, parameters)
    wrong = f"The passphrase does not open key {wrapping.key_id} of host {host_id}."
    if not hmac.compare_digest(check, wrapping.check):
        raise WrongPassphrase(wrong)
    try:
        plain = AESGCM(key).decrypt(NONCE, wrapping.sealed, aad)
    except InvalidTag as error:
        raise WrongPassphrase(wrong) from error
    contents = decode(plain, _Contents)
    keys = HostKeys(
        vault_id=vault_id,
        host_id=host_id,
        recovery_seed=Secret(contents.recovery_seed),
        signing=Secret(contents.signing),
        host_secret=Secret(contents.host_secret),
        domains={domain: Secret(secret) for domain, secret in contents.domains.items()},
        vault_signer=None if contents.vault_signer is None else Secret(contents.vault_signer),
        vault_sha256=contents.vault_sha256,
    )
    if {host_id, vault_id} & set(keys.domains):
        raise Damaged(f"The wrapping of key {wrapping.key_id} names a domain that is none.")
    if keys.recovery_public != wrapping.public_key:
        raise Damaged(f"The wrapping of key {wrapping.key_id} holds another key than it names.")
    return keys


def check_passphrase(passphrase: Secret[str]) -> None:
    """Raises PassphraseUnfit, without showing any of it."""
    text = passphrase.reveal()
    if set(text) - _PRINTABLE:
        raise PassphraseUnfit("The passphrase has characters other than printable ASCII.")
    if len(text) < MIN_PASSPHRASE:
        raise PassphraseUnfit(f"The passphrase has {len(text)} characters; it needs at least {MIN_PASSPHRASE}.")


def read_passphrase_file(path: Path) -> Secret[str]:
    """The first line of the file. Raises ConfigInvalid (no such file), PassphraseUnfit."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PASSPHRASE_FILE)
    except OSError as error:
        raise ConfigInvalid(
            f"The passphrase file {path} cannot be read: {error.strerror}.",
            next_step="Name a file with --passphrase-file that holds the passphrase on its first line.",
        ) from error
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise PassphraseUnfit(f"The passphrase in {path} has characters other than printable ASCII.") from error
    passphrase = Secret(text.split("\n", 1)[0].rstrip("\r"))
    check_passphrase(passphrase)
    return passphrase


def generate_passphrase() -> Secret[str]:
    """Six groups of five characters that cannot be mistaken for one another: 150 bits."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(6))
    return Secret("-".join(groups))


def _stretch(passphrase: Secret[str], parameters: Argon2Parameters) -> tuple[bytes, bytes]:
    """(AES-256 key, check)."""
    kdf = Argon2id(
        salt=parameters.salt,
        length=64,
        iterations=parameters.iterations,
        lanes=parameters.lanes,
        memory_cost=parameters.memory_kib,
    )
    stretched = kdf.derive(passphrase.reveal().encode())
    return stretched[:32], stretched[32:]


def _aad(vault_id: str, host_id: str, key_id: str, public: bytes, parameters: Argon2Parameters) -> bytes:
    return joined(
        b"stateward wrapping v1",
        uuid_bytes(vault_id),
        uuid_bytes(host_id),
        key_id.encode(),
        public,
        parameters.canonical(),
    )
