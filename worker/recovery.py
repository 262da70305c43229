"""Finding and opening recovery points with nothing but the bucket and a passphrase."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import (
    Damaged,
    FormatTooNew,
    HostNotFound,
    NotTrusted,
    PointNotFound,
    StatewardError,
    WrongPassphrase,
)
from common.ids import is_uuid
from common.secret import Secret
from common.vault.hosts import FoundPoint, accepted, gaps, host_ids, points_of, read_host, unwrap_host
from common.vault.keys import HostKeys
from common.vault.points import StoredPoint, open_root
from common.vault.store import ObjectMissing, Store
from common.vault.vaults import OpenVault, open_vault

LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedHost:
    """A host whose keys the passphrase gave back, and its points."""

    vault: OpenVault
    keys: HostKeys
    name: str
    points: tuple[FoundPoint, ...]
    problem: str = ""
    """What is wrong with the vault itself."""

    @property
    def problems(self) -> list[str]:
        """What is wrong with the vault's config, gaps in the chain, and points that do not count, by name."""
        config = [each for each in (self.problem, self.vault.problem) if each]
        broken = [f"{each.key}: {each.problem}" for each in self.points if each.problem]
        seen = max((point.head.config_seq for point in accepted(list(self.points))), default=0)
        if seen > self.vault.config.seq:
            broken.append(
                f"A point has seen config {seen}; the newest here is {self.vault.config.seq}: newer are hidden."
            )
        return [*config, *gaps(list(self.points)), *broken]

    def choose(self, wanted: str) -> StoredPoint:
        """The point `wanted` (a ULID or `latest`). Raises PointNotFound, Damaged (it is there and does not hold)."""
        good = accepted(list(self.points))
        if wanted == LATEST:
            if not good:
                raise PointNotFound(f"The host {self.name} has no recovery point that counts.")
            return good[-1]
        for each in self.points:
            if each.id == wanted:
                if each.point is None or each.problem:
                    raise Damaged(f"The recovery point {each.key} does not hold: {each.problem}")
                return each.point
        raise PointNotFound(f"The host {self.name} has no recovery point {wanted}.")

    def root_of(self, point: StoredPoint) -> bytes:
        """The root in clear. Raises NotTrusted when it was sealed to another key than the passphrase's."""
        return open_root(point, self.keys.recovery_seed)


def open_host(store: Store, passphrase: Secret[str], *, host: str | None, point: str = LATEST) -> OpenedHost:
    """Try the passphrase on the wrappings of the host named (by id or name), or of every host.

    Only records and points signed with the key that the passphrase unwraps are trusted. When it opens several hosts, the
    one that has `point` is taken.

    Raises:
        BucketMissing, ObjectMissing: there is no vault.
        HostNotFound: no such host, or several that could be meant.
        WrongPassphrase: it opens no host's keys.
    """
    vault = _vault(store)
    candidates = _named(store, vault, host)
    opened: list[OpenedHost] = []
    problem: StatewardError | None = None
    for each in candidates:
        try:
            keys = unwrap_host(store, passphrase, vault_id=vault.id, host=each)
        except (WrongPassphrase, Damaged, FormatTooNew) as error:
            problem = problem if isinstance(problem, WrongPassphrase) else error
            continue
        opened.append(_opened(store, vault, keys))
    if not opened:
        raise problem or HostNotFound("The vault holds no host.")
    if point != LATEST:
        opened = [each for each in opened if any(found.id == point for found in each.points)] or opened[:1]
    if len(opened) > 1:
        names = ", ".join(f"{each.name} ({each.keys.host_id})" for each in opened)
        raise HostNotFound(f"The passphrase opens several hosts: {names}.", next_step="Name one with --host.")
    return opened[0]


def is_vault_of(keys: HostKeys, vault: OpenVault) -> bool:
    """Whether `vault.json` is the one of the time when the keys were wrapped: a planted one brings a signer of its own,
    and with it decisions that hide points."""
    return keys.vault_sha256 == vault.document_sha256


def _vault(store: Store) -> OpenVault:
    try:
        return open_vault(store, recovering=True)
    except ObjectMissing as error:
        raise ObjectMissing(
            "There is no vault here: vault.json is missing.", next_step="Check bucket, prefix and endpoint of the URL."
        ) from error


def _named(store: Store, vault: OpenVault, host: str | None) -> list[str]:
    hosts = sorted({*host_ids(store), *(info.key.split("/")[1] for info in store.list("keys/", hidden=True))})
    if host is None:
        return hosts
    if is_uuid(host):
        if host not in hosts:
            raise HostNotFound(f"The vault holds no host {host}.")
        return [host]
    found = [each for each in hosts if host_name(store, vault.id, each) == host]
    if not found:
        raise HostNotFound(f"The vault holds no host with the name {host!r}.")
    return found


def host_name(store: Store, vault_id: str, host: str) -> str:
    """The name in a host's newest record whose chain holds, "" when there is none: shown, not trusted."""
    try:
        return read_host(store, vault_id=vault_id, host=host).document.name
    except (NotTrusted, Damaged):
        return ""


def _opened(store: Store, vault: OpenVault, keys: HostKeys) -> OpenedHost:
    """With a `vault.json` that is not the one the keys know, no decision is believed, and that is said; the points are
    signed by the host all the same, so nothing planted keeps a passphrase from its data."""
    problem = (
        "" if is_vault_of(keys, vault) else "The object vault.json is not the one that the host was enrolled with."
    )
    points = points_of(
        store,
        vault_id=vault.id,
        host=keys.host_id,
        public=keys.signing_key.public_key(),
        signer=None if problem else vault.signer,
    )
    name = host_name(store, vault.id, keys.host_id) or keys.host_id
    return OpenedHost(vault=vault, keys=keys, name=name, points=tuple(points), problem=problem)
