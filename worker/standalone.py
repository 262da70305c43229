"""One host, one vault, no coordinator: the worker allots point ids and fences, and decides what is received."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contracts.jobs import BackupSpec, PreviousPoint
from common.errors import ConfigInvalid, NotInitialised, NotTrusted
from common.ids import new_ulid, new_uuid
from common.secret import Secret
from common.vault import names
from common.vault.accept import index_objects, judge, read_pages
from common.vault.derive import KEY_SIZE
from common.vault.documents import Decision, HostDocument, Immutability, NamedObject
from common.vault.hosts import (
    accepted,
    gaps,
    points_of,
    read_host,
    unwrap_host,
    verdict_of,
    write_host_record,
    write_state,
)
from common.vault.keys import HostKeys, new_host_keys, wrap
from common.vault.location import VaultLocation
from common.vault.points import StoredPoint
from common.vault.store import ObjectMissing, Store
from common.vault.vaults import OpenVault, create_vault, open_vault
from worker.backup import BackupRequest
from worker.pinned import PinnedVault, load_pinned, save_pinned, vault_folder
from worker.runlog import Journal

KNOWN_POINTS = 4
"""Of so many newest points the blocks count as known."""


def initialise(
    store: Store,
    location: VaultLocation,
    *,
    state: Path,
    host_name: str,
    passphrase: Secret[str],
    domain_policy: str,
    immutability: Immutability,
    clock: Callable[[], datetime],
    take_over: str | None = None,
) -> tuple[PinnedVault, bool]:
    """Make the vault if there is none, add this host (or continue `take_over`), and pin everything locally.

    Returns the pinned values and whether the vault was made. Running it again after a crash is safe: a host that is
    already pinned here is refused.

    Raises:
        ConfigInvalid: this host is initialised in this vault already.
        WrongPassphrase: `take_over`, and it is not that host's.
    """
    made = False
    signer: Secret[bytes] | None = None
    try:
        vault = open_vault(store)
    except ObjectMissing:
        signer = Secret(Ed25519PrivateKey.generate().private_bytes_raw())
        vault = create_vault(
            store,
            vault_id=new_uuid(),
            name=location.bucket or (location.path.name if location.path else "vault"),
            signer=Ed25519PrivateKey.from_private_bytes(signer.reveal()),
            clock=clock,
            immutability=immutability,
        )
        made = True
    _refuse_second(state, vault.id)
    if take_over is not None:
        keys = unwrap_host(store, passphrase, vault_id=vault.id, host=take_over)
        read_host(store, vault_id=vault.id, host=take_over, trusted=keys.signing_key.public_key().public_bytes_raw())
    else:
        keys = new_host_keys(
            vault_id=vault.id,
            host_id=new_uuid(),
            domains={new_uuid(): Secret(secrets.token_bytes(KEY_SIZE))},
            vault_signer=signer,
        )
        add_host(store, keys, vault, host_name=host_name, passphrase=passphrase, clock=clock)
    pinned = PinnedVault.of(keys, url=location.url, host_name=host_name, vault=vault, domain_policy=domain_policy)
    save_pinned(state, pinned)
    return pinned, made


def add_host(
    store: Store,
    keys: HostKeys,
    vault: OpenVault,
    *,
    host_name: str,
    passphrase: Secret[str],
    clock: Callable[[], datetime],
) -> None:
    """Store the wrapping, read it back, then the host's record that names it."""
    wrapping = wrap(keys, passphrase)
    wrapping_key = names.wrapping(keys.host_id, keys.key_id, new_ulid())
    store.put(wrapping_key, wrapping)
    unwrap_host(store, passphrase, vault_id=vault.id, host=keys.host_id)
    document = HostDocument(
        host=keys.host_id,
        name=host_name,
        signing_public=keys.signing_key.public_key().public_bytes_raw(),
        recovery_public=keys.recovery_public,
        key_id=keys.key_id,
        wrappings={wrapping_key: hashlib.sha256(wrapping).digest()},
        created=clock().isoformat(),
    )
    key, raw = write_host_record(document, vault_id=vault.id, signer=keys.signing_key)
    store.put(key, raw)


def find_pinned(state: Path, location: VaultLocation, store: Store) -> tuple[PinnedVault, OpenVault]:
    """What this host pinned of the vault at `location`, and the vault, checked against it.

    Raises:
        NotInitialised: `init` was not run on this host for this vault.
    """
    for path in sorted((state / "vaults").glob("*/pinned.json")):
        pinned = load_pinned(state, path.parent.name)
        if VaultLocation.parse(pinned.url) == location:
            return _open(state, pinned, store)
    try:
        vault = open_vault(store)
    except ObjectMissing as error:
        raise NotInitialised(f"There is no vault at {location.url} yet.") from error
    try:
        pinned = load_pinned(state, vault.id)  # the vault moved, or is reached by another name
    except NotInitialised as error:
        raise NotInitialised(f"This host is not initialised in the vault at {location.url}.") from error
    return _open(state, pinned, store)


def _open(state: Path, pinned: PinnedVault, store: Store) -> tuple[PinnedVault, OpenVault]:
    vault = open_vault(store, pinned=pinned.pin)
    seen = pinned.seen(vault)
    if seen != pinned:
        save_pinned(state, seen)
    return seen, vault


def _refuse_second(state: Path, vault_id: str) -> None:
    try:
        load_pinned(state, vault_id)
    except NotInitialised:
        return
    raise ConfigInvalid(
        f"This host is already initialised in vault {vault_id}.",
        next_step="Run `stateward-worker backup`, or name another state folder with --state.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A host's points as the next backup must continue them."""

    points: tuple[StoredPoint, ...]
    problems: tuple[str, ...]


def read_chain(store: Store, pinned: PinnedVault, vault: OpenVault) -> Chain:
    """The accepted points of this host, and what is missing among them.

    A point of an own earlier run without a verdict (the run died right after its commit) is judged now.
    """
    public = pinned.signing_key.public_key()
    found = points_of(store, vault_id=pinned.vault_id, host=pinned.host_id, public=public, signer=vault.signer)
    return Chain(points=tuple(accepted(found)), problems=tuple(gaps(found)))


def plan_backup(
    store: Store, pinned: PinnedVault, vault: OpenVault, *, spec: BackupSpec, state: Path
) -> tuple[BackupRequest, Chain]:
    """What a lease would say: continue the job whose journal was left, else begin one."""
    chain = read_chain(store, pinned, vault)
    folder = vault_folder(state, pinned.vault_id)
    job = Journal.unfinished_job(folder / "journal", pinned.vault_id)
    last = chain.points[-1] if chain.points else None
    lists: dict[str, NamedObject] = {}
    indexes: dict[str, NamedObject] = {}
    for point in chain.points[-KNOWN_POINTS:]:
        lists |= {each.key: each for each in point.head.list_objects}
        indexes |= {each.key: each for each in index_objects(store, point.head)}
    highest = max((point.head.fence for point in chain.points), default=0)
    count = len(chain.points) + 1
    request = BackupRequest(
        spec=spec,
        job=job or new_uuid(),
        attempt=2 if job else 1,
        epoch=0,
        fence=highest + 1,
        point=_unfinished_point(folder, job, pinned, chain) or new_ulid(),
        seq=1 if last is None else last.head.seq + 1,
        prev=None if last is None else PreviousPoint(point=last.head.point, sha256=last.sha256.hex()),
        lists=tuple(lists.values()),
        indexes=tuple(indexes.values()),
        codec=vault.config.codec,
        chunking=vault.document.chunking,
        reread=spec.reread or (vault.config.full_reread_every > 0 and count % vault.config.full_reread_every == 0),
    )
    return request, chain


def _unfinished_point(folder: Path, job: str | None, pinned: PinnedVault, chain: Chain) -> str | None:
    """The point id of a run that died between journalling its point and the answer to its PUT."""
    if job is None:
        return None
    journal = Journal.open(folder / "journal", job=job, vault=pinned.vault_id, clock=lambda: 0.0)
    if journal.point is None or any(point.head.point == journal.point.point for point in chain.points):
        return None
    return journal.point.point


def receive(
    store: Store, pinned: PinnedVault, request: BackupRequest, chain: Chain, clock: Callable[[], datetime]
) -> StoredPoint:
    """Read the point back, judge it, and write `received` if this host may sign that.

    Raises:
        NotTrusted: the point that was just written does not hold.
    """
    proven = {
        pack.sha256 for point in chain.points[-1:] for page in read_pages(store, point.head) for pack in page.packs
    }
    verdict = judge(
        store,
        vault_id=pinned.vault_id,
        host=pinned.host_id,
        point_id=request.point,
        public=pinned.signing_key.public_key(),
        proven=proven,
    )
    if verdict.decision is not Decision.RECEIVED or verdict.point is None:
        raise NotTrusted(f"The recovery point that was written does not hold: {verdict.reason}")
    signer = pinned.signer_key
    if signer is not None and not verdict_of(
        store, vault_id=pinned.vault_id, point=verdict.point, signer=signer.public_key()
    ):
        write_state(
            store, vault_id=pinned.vault_id, point=verdict.point, decision=Decision.RECEIVED, signer=signer, clock=clock
        )
    return verdict.point
