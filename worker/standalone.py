"""One host, one vault, no coordinator: the worker allots point ids and fences, and decides what is received."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contracts.jobs import BackupSpec, PreviousPoint
from common.errors import ConfigInvalid, Damaged, FormatTooNew, NotInitialised, NotTrusted, WrongPassphrase
from common.ids import new_ulid, new_uuid
from common.privatefiles import make_private_folder, remove, write_private
from common.secret import Secret
from common.vault import names
from common.vault.accept import index_objects, judge, read_pages
from common.vault.derive import KEY_SIZE
from common.vault.documents import Chunking, Decision, HostDocument, Immutability, NamedObject
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
from common.vault.vaults import DEFAULT_CHUNKING, OpenVault, create_vault, open_vault, read_vault_document
from worker.backup import BackupRequest
from worker.pinned import PinnedVault, load_pinned, save_pinned, vault_folder
from worker.recovery import is_vault_of
from worker.runlog import Journal

_BEGUN = "init-begun.json"
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
    chunking: Chunking = DEFAULT_CHUNKING,
) -> tuple[PinnedVault, bool]:
    """Make the vault if there is none, add this host (or continue `take_over`), and pin everything locally.

    Returns the pinned values and whether the vault was made. Running it again after a crash is safe: a host that is
    already pinned here is refused.

    Raises:
        ConfigInvalid: this host is initialised in this vault already.
        WrongPassphrase: `take_over`, and it is not that host's.
    """
    if take_over is not None:
        vault, made = open_vault(store), False
        _refuse_second(state, vault.id)
        keys = unwrap_host(store, passphrase, vault_id=vault.id, host=take_over)
        if not is_vault_of(keys, vault):
            raise NotTrusted("The object vault.json is not the one that this host was initialised with.")
        read_host(store, vault_id=vault.id, host=take_over, trusted=keys.signing_key.public_key().public_bytes_raw())
    else:
        begun = _begin(state, location, store)
        made = begun.vault_signer is not None
        vault = (
            open_vault(store)
            if begun.vault_signer is None
            else _make_vault(store, location, begun, immutability, clock, chunking)
        )
        keys = _host_keys(store, begun, passphrase, vault)
        if not _is_added(store, keys):
            add_host(store, keys, vault, host_name=host_name, passphrase=passphrase, clock=clock)
    pinned = PinnedVault.of(keys, url=location.url, host_name=host_name, vault=vault, domain_policy=domain_policy)
    save_pinned(state, pinned)
    remove(state / _BEGUN)
    return pinned, made


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    """An `init` that has not ended: were the signer lost in a crash, nobody could sign for the vault any more. The
    recovery seed is not here: no disk of a host has it."""

    url: str
    vault: str
    host: str
    vault_signer: bytes | None

    def __repr__(self) -> str:
        return f"_Begun(url={self.url!r}, vault={self.vault!r}, host={self.host!r})"


def _begin(state: Path, location: VaultLocation, store: Store) -> _Begun:
    """The ids and the signer of this `init`, written down before they are used: those of one that was interrupted, or
    new ones. There is a signer when there was no vault."""
    try:
        found = read_vault_document(store)[0].vault
        _refuse_second(state, found)
    except ObjectMissing:
        found = ""
    try:
        begun = msgspec.json.decode((state / _BEGUN).read_bytes(), type=_Begun)
    except (OSError, msgspec.MsgspecError):
        begun = None
    if begun is None or begun.url != location.url or (found and begun.vault != found):
        signer = None if found else Ed25519PrivateKey.generate().private_bytes_raw()
        begun = _Begun(url=location.url, vault=found or new_uuid(), host=new_uuid(), vault_signer=signer)
        make_private_folder(state)
        write_private(state / _BEGUN, msgspec.json.encode(begun))
    return begun


def _make_vault(
    store: Store,
    location: VaultLocation,
    begun: _Begun,
    immutability: Immutability,
    clock: Callable[[], datetime],
    chunking: Chunking,
) -> OpenVault:
    return create_vault(
        store,
        vault_id=begun.vault,
        name=location.bucket or (location.path.name if location.path else "vault"),
        signer=Ed25519PrivateKey.from_private_bytes(begun.vault_signer or b""),
        clock=clock,
        immutability=immutability,
        chunking=chunking,
    )


def _host_keys(store: Store, begun: _Begun, passphrase: Secret[str], vault: OpenVault) -> HostKeys:
    """The keys that an interrupted `init` has wrapped already, else new ones."""
    host = begun.host
    try:
        return unwrap_host(store, passphrase, vault_id=begun.vault, host=host)
    except WrongPassphrase:
        host = new_uuid()  # that init was given another passphrase: its host has no record and counts for nothing
    except Damaged:
        pass
    return new_host_keys(
        vault_id=begun.vault,
        host_id=host,
        vault_sha256=vault.document_sha256,
        domains={new_uuid(): Secret(secrets.token_bytes(KEY_SIZE))},
        vault_signer=None if begun.vault_signer is None else Secret(begun.vault_signer),
    )


def _is_added(store: Store, keys: HostKeys) -> bool:
    """Whether an interrupted `init` got as far as the host's record."""
    public = keys.signing_key.public_key().public_bytes_raw()
    try:
        read_host(store, vault_id=keys.vault_id, host=keys.host_id, trusted=public)
    except NotTrusted:
        return False
    return True


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
    last: StoredPoint | None = None
    """The newest that this host signed, deleted or quarantined ones included: the next point follows it."""
    highest_seq: int = 0
    """Also of points that the store hides: no `seq` is given twice."""
    taken: frozenset[str] = frozenset()
    """Ids of all points, also of what somebody else put under a point's key."""


def read_chain(store: Store, pinned: PinnedVault, vault: OpenVault) -> Chain:
    """The accepted points of this host, and what is missing among them.

    A point of an own earlier run without a verdict (the run died right after its commit) is judged now.
    """
    public = pinned.signing_key.public_key()
    found = points_of(store, vault_id=pinned.vault_id, host=pinned.host_id, public=public, signer=vault.signer)
    genuine = [each.point for each in found if each.is_genuine and each.point is not None]
    hidden = [f"{each.key}: {each.problem}" for each in found if each.hidden_seq]
    return Chain(
        points=tuple(accepted(found)),
        problems=(*gaps(found), *hidden),
        last=genuine[-1] if genuine else None,
        highest_seq=max([0, *(point.head.seq for point in genuine), *(each.hidden_seq for each in found)]),
        taken=frozenset(each.id for each in found),
    )


def plan_backup(
    store: Store, pinned: PinnedVault, vault: OpenVault, *, spec: BackupSpec, state: Path
) -> tuple[BackupRequest, Chain]:
    """What a lease would say: continue the job whose journal was left, else begin one."""
    chain = read_chain(store, pinned, vault)
    folder = vault_folder(state, pinned.vault_id)
    job = Journal.unfinished_job(folder / "journal", pinned.vault_id)
    last = chain.last
    lists: dict[str, NamedObject] = {}
    indexes: dict[str, NamedObject] = {}
    for point in chain.points[-KNOWN_POINTS:]:
        with contextlib.suppress(Damaged, FormatTooNew):  # its blocks are sent again
            lists |= {page.key: page.named for page in read_pages(store, point.head)}
            indexes |= {each.key: each for each in index_objects(store, point.head)}
    highest = 0 if last is None else last.head.fence
    count = len(chain.points) + 1
    request = BackupRequest(
        spec=spec,
        job=job or new_uuid(),
        attempt=2 if job else 1,
        epoch=0,
        fence=highest + 1,
        point=_unfinished_point(folder, job, pinned, chain) or new_ulid(),
        seq=chain.highest_seq + 1,
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
    if journal.point is None or journal.point.point in chain.taken:
        return None
    return journal.point.point


def receive(
    store: Store, pinned: PinnedVault, request: BackupRequest, chain: Chain, clock: Callable[[], datetime]
) -> StoredPoint:
    """Read the point back, judge it, and write `received` if this host may sign that.

    Raises:
        NotTrusted: the point that was just written does not hold.
    """
    proven: set[bytes] = set()
    for point in chain.points[-1:]:
        with contextlib.suppress(Damaged, FormatTooNew):  # then every pack is asked for again
            proven |= {pack.sha256 for page in read_pages(store, point.head) for pack in page.packs}
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
