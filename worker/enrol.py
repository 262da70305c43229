"""Enrolment of this host, in steps that each survive a crash: running `register` again goes on where it ended.

    credentials file → identity of the host (id, Ed25519 key)         written to enrolment.json
    → POST /v1/enrol: vault, queue, domain's secret                   written to enrolment.json
    → recovery key, host-only secret, wrapping, host record           written to enrolment.json, the recovery key sealed
    → vault checked and pinned → POST /v1/enrol/keys → identity.json → enrolment.json and credentials file deleted

The token is used once, because repeating the first call with the same key is the same call. The recovery private key is
never on this disk but inside the wrapping, which only the passphrase opens. Until the operator has confirmed that the
passphrase is kept, by the key's fingerprint, the registration is `incomplete` and no backup runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from common.contracts.base import Base64Text, Contract, UuidText
from common.contracts.checkin import HostReport
from common.contracts.enrolment import CredentialsClaims, EnrolReply, EnrolRequest, KeysRequest
from common.errors import Conflicting, Damaged, NotInitialised, Refused, WrongPassphrase
from common.ids import new_ulid, new_uuid
from common.privatefiles import remove, write_private
from common.secret import Secret
from common.signing import b64, fingerprint, unb64
from common.vault import names
from common.vault.documents import HostDocument
from common.vault.hosts import write_host_record
from common.vault.keys import HostKeys, new_host_keys, unwrap, wrap
from worker.client import CoordinatorClient, Patience
from worker.credentials import check_credentials, open_token, read_credentials
from worker.identity import ACTIVE, Identity, find_identity, load_identity, save_identity

PENDING_FILE = "enrolment.json"
KEYS_FILE = "keys-to-confirm.json"
"""Objects that `passphrase confirm` sends once more; sealed or public, and gone when the host is active."""

PATIENCE = Patience(tries=6)


class _Sealed(Contract):
    """What remains of the new keys on this disk."""

    recovery_public: Base64Text
    host_secret: Base64Text = Field(repr=False)
    objects: KeysRequest


class _Pending(Contract):
    token: str = Field(repr=False)
    host_id: UuidText
    signing_key: Base64Text = Field(repr=False)
    reply: EnrolReply | None = None
    sealed: _Sealed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What the host trusts from now on, whatever the bucket or the network say."""

    reply: EnrolReply
    coordinator_key: bytes
    signing: Secret[bytes]
    recovery_public: bytes
    host_secret: Secret[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolDeps:
    state: Path
    client: Callable[[CredentialsClaims, str, Ed25519PrivateKey], CoordinatorClient]
    """(claims, host id, host key) → a client that proves with that key."""
    pin: Callable[[Pins], None]
    """Checks and keeps the pins durably; called again with the same after a crash. Raises NotTrusted."""
    report: Callable[[], HostReport]
    now: Callable[[], datetime]
    proxy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What `register` and `passphrase confirm` tell."""

    host_id: str
    vault: str
    state: str
    fingerprint: str


def register(
    credentials: Path, passphrase: Secret[str], deps: EnrolDeps, *, key_saved: str | None = None, region: str = ""
) -> Registration:
    """Enrol this host, or go on with an enrolment that was interrupted. `credentials` may be gone by then.

    Raises:
        CredentialsExpired, CredentialsForeign, CredentialsAltered, CredentialsUsedUp: which of them says why.
        CoordinatorUnavailable: calling again goes on.
        WrongPassphrase: the interrupted enrolment began with another passphrase.
        Conflicting: this host is registered already, with other credentials.
    """
    identity = find_identity(deps.state)
    pending = _find_pending(deps.state)
    if identity is None:
        pending = pending or _begin(credentials, deps)
        claims = open_token(pending.token)
        with deps.client(claims, pending.host_id, _key(pending)) as client:
            enrolled = _enrol(pending, claims, client, deps, region)
            sealed = _seal(enrolled, passphrase, claims, deps)
            identity = _send_and_trust(sealed, claims, client, deps)
    elif pending is not None and open_token(pending.token).jti != identity.token_id:
        raise Conflicting(f"This host is registered already, with vault {identity.vault.name}.")
    _clean_up(credentials, identity, deps)
    if key_saved is not None and identity.state != ACTIVE:
        return confirm(key_saved, deps)
    return _told(identity)


def confirm(key_saved: str, deps: EnrolDeps) -> Registration:
    """Say that the passphrase is kept: the host becomes active.

    Raises:
        Refused: the fingerprint is another key's.
        NotInitialised: the host is not registered.
    """
    identity = load_identity(deps.state)
    if key_saved.strip().lower() != identity.recovery_fingerprint:
        raise Refused(
            f"The fingerprint {key_saved} is not that of this host's key, which is {identity.recovery_fingerprint}.",
            next_step="Compare it with the fingerprint that `register` showed.",
        )
    if identity.state == ACTIVE:
        return _told(identity)
    objects = _saved_objects(deps.state)
    saying = objects.model_copy(update={"key_saved": identity.recovery_fingerprint})
    with deps.client(_claims_of(identity), identity.host_id, identity.key()) as client:
        reply = client.send_keys(saying, PATIENCE)
    identity = identity.model_copy(update={"state": reply.state})
    save_identity(deps.state, identity)
    if identity.state == ACTIVE:
        remove(deps.state / KEYS_FILE)
    return _told(identity)


# the steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _begin(credentials: Path, deps: EnrolDeps) -> _Pending:
    """Nothing is sent before the host's own key is on disk: the token belongs to that key from its first use."""
    found = read_credentials(credentials)
    check_credentials(found.claims, hostname=deps.report().hostname, now=deps.now().timestamp())
    key = Ed25519PrivateKey.generate()
    pending = _Pending(token=found.token, host_id=new_uuid(), signing_key=b64(key.private_bytes_raw()))
    return _save_pending(deps.state, pending)


def _enrol(
    pending: _Pending, claims: CredentialsClaims, client: CoordinatorClient, deps: EnrolDeps, region: str
) -> _Pending:
    if pending.reply is not None:
        return pending
    request = EnrolRequest(
        token=pending.token,
        host_id=pending.host_id,
        host_key=b64(_key(pending).public_key().public_bytes_raw()),
        report=deps.report(),
        region=region or claims.region,
    )
    try:
        reply = client.enrol(request, PATIENCE)
    except Refused:
        remove(deps.state / PENDING_FILE)  # else other credentials would never get their turn
        raise
    if (reply.host_id, reply.vault.vault_id) != (pending.host_id, claims.vault.vault_id):
        raise Refused("The coordinator enrolled another host, or into another vault, than the credentials say.")
    return _save_pending(deps.state, pending.model_copy(update={"reply": reply}))


def _seal(pending: _Pending, passphrase: Secret[str], claims: CredentialsClaims, deps: EnrolDeps) -> _Pending:
    """New keys, of which only the wrapping and public parts stay; those of an interrupted run must fit the passphrase."""
    reply = _reply(pending)
    vault_id = reply.vault.vault_id
    if pending.sealed is not None:
        try:
            unwrap(unb64(pending.sealed.objects.wrapping), passphrase, vault_id=vault_id, host_id=pending.host_id)
        except WrongPassphrase as error:
            raise WrongPassphrase(
                "The enrolment that was interrupted began with another passphrase.",
                next_step=f"Use that passphrase, or delete {deps.state / PENDING_FILE} and register with new credentials.",
            ) from error
        return pending
    domains = {reply.domain.domain_id: Secret(unb64(reply.domain.secret))}
    vault_sha256 = hashlib.sha256(unb64(reply.vault_object)).digest()
    fresh = new_host_keys(vault_id=vault_id, host_id=pending.host_id, vault_sha256=vault_sha256, domains=domains)
    keys = replace(fresh, signing=Secret(unb64(pending.signing_key)))
    sealed = _Sealed(
        recovery_public=b64(keys.recovery_public),
        host_secret=b64(keys.host_secret.reveal()),
        objects=_objects(keys, passphrase, claims, deps),
    )
    return _save_pending(deps.state, pending.model_copy(update={"sealed": sealed}))


def _objects(keys: HostKeys, passphrase: Secret[str], claims: CredentialsClaims, deps: EnrolDeps) -> KeysRequest:
    wrapping = wrap(keys, passphrase)
    wrapping_key = names.wrapping(keys.host_id, keys.key_id, new_ulid())
    record = HostDocument(
        host=keys.host_id,
        name=deps.report().hostname,
        labels=claims.labels,
        region=claims.region,
        signing_public=keys.signing_key.public_key().public_bytes_raw(),
        recovery_public=keys.recovery_public,
        key_id=keys.key_id,
        wrappings={wrapping_key: hashlib.sha256(wrapping).digest()},
        created=deps.now().isoformat(),
    )
    record_key, signed = write_host_record(record, vault_id=keys.vault_id, signer=keys.signing_key)
    return KeysRequest(
        host_object_key=record_key,
        host_object=b64(signed),
        wrapping_key=wrapping_key,
        wrapping=b64(wrapping),
    )


def _send_and_trust(
    pending: _Pending, claims: CredentialsClaims, client: CoordinatorClient, deps: EnrolDeps
) -> Identity:
    """The last step that talks, and the one that makes this host a registered one."""
    reply, sealed = _reply(pending), _sealed(pending)
    recovery_public = unb64(sealed.recovery_public)
    deps.pin(
        Pins(
            reply=reply,
            coordinator_key=unb64(claims.coordinator_key),
            signing=Secret(unb64(pending.signing_key)),
            recovery_public=recovery_public,
            host_secret=Secret(unb64(sealed.host_secret)),
        )
    )
    answer = client.send_keys(sealed.objects, PATIENCE)
    if answer.state != ACTIVE:
        write_private(deps.state / KEYS_FILE, sealed.objects.model_dump_json().encode())
    identity = Identity(
        host_id=pending.host_id,
        signing_key=pending.signing_key,
        coordinator_url=claims.coordinator_url,
        coordinator_keys=(claims.coordinator_key,),
        ca_pem=claims.ca_pem,
        proxy=deps.proxy,
        vault=reply.vault,
        queue=reply.queue,
        region=claims.region,
        domain_policy=reply.domain_policy,
        recovery_fingerprint=fingerprint(recovery_public),
        token_id=claims.jti,
        state=answer.state,
        enrolled=deps.now(),
    )
    save_identity(deps.state, identity)
    return identity


def _clean_up(credentials: Path, identity: Identity, deps: EnrolDeps) -> None:
    """Delete what must not stay: the pending enrolment, and the credentials file if it is the one that was used."""
    remove(deps.state / PENDING_FILE)
    if not credentials.exists():
        return
    if read_credentials(credentials).claims.jti != identity.token_id:
        raise Conflicting(
            f"This host is registered already, with vault {identity.vault.name} at {identity.coordinator_url}.",
            next_step="Unregister it first, or name another state folder with --state.",
        )
    remove(credentials)


# ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _find_pending(state: Path) -> _Pending | None:
    try:
        return _Pending.model_validate_json((state / PENDING_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise Damaged(
            f"{state / PENDING_FILE} is not an enrolment of this version.",
            next_step="Delete it, and register with new credentials.",
        ) from error


def _save_pending(state: Path, pending: _Pending) -> _Pending:
    write_private(state / PENDING_FILE, pending.model_dump_json().encode())
    return pending


def _saved_objects(state: Path) -> KeysRequest:
    try:
        return KeysRequest.model_validate_json((state / KEYS_FILE).read_bytes())
    except FileNotFoundError as error:
        raise NotInitialised(
            f"There is no key to confirm in {state}.", next_step="Register this host again with new credentials."
        ) from error


def _claims_of(identity: Identity) -> CredentialsClaims:
    """As much of the credentials as a client needs, from the identity."""
    return CredentialsClaims(
        iss=identity.coordinator_url,
        jti=identity.token_id,
        iat=0,
        exp=0,
        coordinator_url=identity.coordinator_url,
        coordinator_key=identity.coordinator_keys[0],
        ca_pem=identity.ca_pem,
        vault=identity.vault,
    )


def _key(pending: _Pending) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(unb64(pending.signing_key))


def _reply(pending: _Pending) -> EnrolReply:
    if pending.reply is None:
        raise NotInitialised("The enrolment has not been answered yet.")
    return pending.reply


def _sealed(pending: _Pending) -> _Sealed:
    if pending.sealed is None:
        raise NotInitialised("The host's keys have not been made yet.")
    return pending.sealed


def _told(identity: Identity) -> Registration:
    return Registration(
        host_id=identity.host_id,
        vault=identity.vault.name,
        state=identity.state,
        fingerprint=identity.recovery_fingerprint,
    )
