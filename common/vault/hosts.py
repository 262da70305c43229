"""Hosts in the vault: their records, wrappings, points and the decisions about those.

A point counts when its host's key signed it; which key that is comes from who asks: the pinned record (a worker, a
coordinator) or the key that the passphrase unwraps (a recovery), never from the bucket alone.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import Damaged, FormatTooNew, NotTrusted, StatewardError, WrongPassphrase
from common.ids import new_ulid
from common.secret import Secret
from common.signing import load_public_key
from common.vault import names
from common.vault.documents import Decision, HostDocument, StateDocument
from common.vault.keys import HostKeys, key_id_of, unwrap
from common.vault.points import StoredPoint
from common.vault.reading import LARGEST_OBJECT, read_matching, read_oldest
from common.vault.signed import read_signed, read_unverified, write_signed
from common.vault.store import Store


@dataclass(frozen=True, slots=True)
class HostRecord:
    """Newest record of a host whose chain holds from its first key on."""

    document: HostDocument
    key: str
    sha256: bytes

    @property
    def signing(self) -> Ed25519PublicKey:
        return load_public_key(self.document.signing_public)


@dataclass(frozen=True, slots=True)
class FoundPoint:
    """A point of a listing; `problem` says why it does not count, empty when it does. `point` is None when nothing under
    the key can be read."""

    key: str
    point: StoredPoint | None
    verdict: str
    problem: str = ""
    hidden_seq: int = 0
    """Of a point that the store does not show: the `seq` in the signed decision that it was received."""

    @property
    def id(self) -> str:
        return names.last(self.key)

    @property
    def is_genuine(self) -> bool:
        """Whether the host signed it, be it deleted or quarantined since."""
        return self.point is not None and (not self.problem or self.verdict != "")

    @property
    def seq(self) -> int:
        return self.point.head.seq if self.point is not None else self.hidden_seq


def write_host_record(document: HostDocument, *, vault_id: str, signer: Ed25519PrivateKey) -> tuple[str, bytes]:
    """(object key, bytes) of a new record; sign it with the Ed25519 key of the record before."""
    key = names.host_record(document.host, new_ulid())
    return key, write_signed("host", document, vault_id=vault_id, object_key=key, signer=signer)


def check_host_record(raw: bytes, *, vault_id: str, object_key: str, public: Ed25519PublicKey) -> HostDocument:
    """Raises NotTrusted, Damaged, FormatTooNew."""
    return read_signed("host", raw, HostDocument, vault_id=vault_id, object_key=object_key, public=public)


def host_ids(store: Store) -> list[str]:
    """Hosts that have a record, in order."""
    return sorted({info.key.split("/")[1] for info in store.list("hosts/", hidden=True)})


def read_host(store: Store, *, vault_id: str, host: str, trusted: bytes | None = None) -> HostRecord:
    """Follow the chain of a host's records. `trusted` is an Ed25519 public key that must be in the chain; without one the
    longest chain is taken, to be shown and not to be relied on.

    Raises:
        NotTrusted: no chain holds, or the trusted key is not in it.
    """
    chains: list[list[HostRecord]] = []
    for info in store.list(f"hosts/{host}/", hidden=True):
        for chain in [*chains, None]:
            record = _record(store, vault_id, host, info.key, None if chain is None else chain[-1])
            if record is not None:
                if chain is None:
                    chains.append([record])
                else:
                    chain.append(record)
                break
    if trusted is not None:
        chains = [chain for chain in chains if trusted in {each.document.signing_public for each in chain}]
    if not chains:
        raise NotTrusted(f"The vault holds no record of host {host} that can be trusted.")
    return max(chains, key=len)[-1]


def _record(store: Store, vault_id: str, host: str, key: str, before: HostRecord | None) -> HostRecord | None:
    """The record under `key`, if it follows `before` (None: if it begins a chain). Anybody may plant one, so one that
    does not follow is passed over."""

    def accept(raw: bytes) -> HostRecord:
        claimed = read_unverified(raw, HostDocument)
        signer = load_public_key(claimed.signing_public) if before is None else before.signing
        document = check_host_record(raw, vault_id=vault_id, object_key=key, public=signer)
        if key_id_of(document.recovery_public) != document.key_id:
            raise NotTrusted(f"The record {key} names another key id than that of its recovery key.")
        if document.host != host or document.prev_sha256 != (b"" if before is None else before.sha256):
            raise NotTrusted(f"The record {key} does not follow the one before it.")
        return HostRecord(document, key, hashlib.sha256(raw).digest())

    try:
        return read_oldest(store, key, accept)
    except (NotTrusted, Damaged, FormatTooNew):
        return None


def unwrap_host(store: Store, passphrase: Secret[str], *, vault_id: str, host: str) -> HostKeys:
    """The newest keys of a host that the passphrase opens; all wrappings are tried.

    Raises:
        WrongPassphrase: it opens none of them.
        Damaged: the vault holds no wrapping of this host.
    """
    problem: StatewardError = Damaged(f"The vault holds no wrapped key of host {host}.")
    for info in sorted(store.list(f"keys/{host}/", hidden=True), key=lambda info: names.last(info.key), reverse=True):
        try:
            return read_matching(store, info.key, lambda raw: unwrap(raw, passphrase, vault_id=vault_id, host_id=host))
        except (WrongPassphrase, Damaged, FormatTooNew) as error:
            problem = problem if isinstance(problem, WrongPassphrase) else error
    raise problem


def points_of(
    store: Store, *, vault_id: str, host: str, public: Ed25519PublicKey, signer: Ed25519PublicKey | None
) -> list[FoundPoint]:
    """All points of a host, by `seq`; those that do not count say why. `signer` verifies the decisions.

    A point that the signer has received and the store does not show is among them, as one that does not count.
    """
    found = []
    for info in store.list(f"points/{host}/", hidden=True):
        key = info.key

        def accept(raw: bytes, key: str = key) -> StoredPoint:
            point = StoredPoint.parse(raw)
            point.verify(public, vault_id=vault_id, object_key=key)
            return point

        try:
            point = read_oldest(store, key, accept)
        except (Damaged, NotTrusted, FormatTooNew) as error:
            found.append(FoundPoint(key, _unverified(store, key), "", error.message))
            continue
        verdict = verdict_of(store, vault_id=vault_id, point=point, signer=signer)
        problem = f"It is {verdict}." if verdict in {Decision.QUARANTINED, Decision.DELETED, Decision.PURGED} else ""
        if not point.head.lists:
            problem = "It names no pack: not even its list of files can be there."
        found.append(FoundPoint(key, point, verdict, problem))
    if signer is not None:
        found += _hidden(store, vault_id, host, {each.id for each in found}, signer)
    return sorted(found, key=lambda each: (each.seq, each.id))


def _hidden(store: Store, vault_id: str, host: str, shown: set[str], signer: Ed25519PublicKey) -> Iterator[FoundPoint]:
    """Points that a signed decision says are there, and that the store does not list."""
    newest: dict[str, StateDocument] = {}
    purged: set[str] = set()
    for info in store.list(f"state/{host}/", hidden=True):
        point_id = info.key.split("/")[2]
        if point_id in shown:
            continue
        with contextlib.suppress(Damaged, NotTrusted, FormatTooNew):
            newest[point_id] = _decision(store, vault_id, info.key, signer)
            if newest[point_id].decision == Decision.PURGED:
                purged.add(point_id)
    for point_id, document in newest.items():
        if point_id not in purged:
            problem = f"It was received as seq {document.seq}, and the store does not show it."
            yield FoundPoint(f"points/{host}/{point_id}", None, "", problem, document.seq)


def _decision(store: Store, vault_id: str, key: str, signer: Ed25519PublicKey) -> StateDocument:
    return read_matching(
        store,
        key,
        lambda raw: read_signed("state", raw, StateDocument, vault_id=vault_id, object_key=key, public=signer),
    )


def accepted(points: list[FoundPoint]) -> list[StoredPoint]:
    """Those that count, by `seq`; the last one is `latest`."""
    return [each.point for each in points if each.point is not None and not each.problem]


def gaps(points: list[FoundPoint]) -> list[str]:
    """What is missing in the chain of `seq` and `prev`: a store can hide points, but not unseen."""
    problems = []
    genuine = [each.point for each in points if each.is_genuine and each.point is not None]
    for before, after in pairwise(genuine):
        if after.head.seq != before.head.seq + 1:
            problems.append(f"Between seq {before.head.seq} and {after.head.seq} points are missing.")
        elif after.head.prev_sha256 != before.sha256:
            problems.append(f"Seq {after.head.seq} does not follow the stored seq {before.head.seq}.")
    return problems


def write_state(
    store: Store,
    *,
    vault_id: str,
    point: StoredPoint,
    decision: Decision,
    signer: Ed25519PrivateKey,
    clock: Callable[[], datetime],
    reason: str = "",
    tags: tuple[str, ...] = (),
    expires: str = "",
) -> str:
    """Add a decision; returns its key. A repeated decision does no harm."""
    key = names.state(point.head.host, point.head.point, new_ulid())
    document = StateDocument(
        decision=decision.value,
        point_sha256=point.sha256,
        created=clock().isoformat(),
        seq=point.head.seq,
        reason=reason,
        tags=tags,
        expires=expires,
    )
    store.put(key, write_signed("state", document, vault_id=vault_id, object_key=key, signer=signer))
    return key


_MAY_FOLLOW: dict[str, frozenset[str]] = {
    "": frozenset({Decision.RECEIVED, Decision.QUARANTINED, Decision.DELETED, Decision.PURGED}),
    Decision.RECEIVED: frozenset({Decision.QUARANTINED, Decision.DELETED, Decision.PURGED}),
    Decision.QUARANTINED: frozenset({Decision.RECEIVED, Decision.DELETED, Decision.PURGED}),
    Decision.DELETED: frozenset({Decision.UNDELETED, Decision.PURGED}),
}
"""What changes a verdict: purged is final, undeleted takes back a deletion and nothing else; anything unknown changes
nothing."""


def verdict_of(store: Store, *, vault_id: str, point: StoredPoint, signer: Ed25519PublicKey | None) -> str:
    """The newest signed decision about exactly these bytes that changes whether the point counts; "" when there is none."""
    if signer is None:
        return ""
    verdict = before_deletion = ""
    for document in decisions(store, vault_id=vault_id, point=point, signer=signer):
        if document.decision not in _MAY_FOLLOW.get(verdict, ()):
            continue
        if document.decision == Decision.DELETED:
            before_deletion = verdict
        verdict = before_deletion if document.decision == Decision.UNDELETED else document.decision
    return verdict


def decisions(store: Store, *, vault_id: str, point: StoredPoint, signer: Ed25519PublicKey) -> Iterator[StateDocument]:
    """Signed decisions about exactly these bytes, in the order of their ULIDs; what is not signed is passed over."""
    head = point.head
    for info in store.list(f"state/{head.host}/{head.point}/", hidden=True):
        try:
            document = _decision(store, vault_id, info.key, signer)
        except (Damaged, NotTrusted, FormatTooNew):
            continue
        if document.point_sha256 == point.sha256:
            yield document


def _unverified(store: Store, key: str) -> StoredPoint | None:
    try:
        return StoredPoint.parse(store.get(key, length=LARGEST_OBJECT))
    except (Damaged, FormatTooNew):
        return None
