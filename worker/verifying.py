"""Listing and verifying points without a restore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import Damaged, HostNotFound, NotTrusted, PointNotFound
from common.ids import is_uuid
from common.vault.accept import judge
from common.vault.documents import Decision
from common.vault.hosts import FoundPoint, HostRecord, gaps, host_ids, points_of, read_host
from common.vault.keys import read_passphrase_file
from common.vault.pages import PackRef
from common.vault.reading import expect_sha256, read_matching
from common.vault.store import Store
from common.vault.tree import Place, read_root
from common.vault.vaults import OpenVault, open_vault
from worker.fetch import Fetcher
from worker.recovery import host_name, open_host
from worker.reporting import shown
from worker.restore import read_entries

BLOCKS_AT_ONCE = 32


@dataclass(slots=True)
class Listing:
    """Points as `points --json` shows them, and what is wrong with their chains."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Verified:
    points: int = 0
    packs: int = 0
    bytes_read: int = 0
    damaged: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": not self.damaged,
            "points": self.points,
            "packs": self.packs,
            "bytes_read": self.bytes_read,
            "damaged": self.damaged,
        }


def list_points(store: Store, host: str | None) -> Listing:
    """All points of a host (by id or name), or of all hosts; signatures are checked with the hosts' stored records."""
    vault = open_vault(store)
    listing = Listing()
    for record in _records(store, vault, host, listing.problems):
        found = _points(store, vault, record)
        listing.problems += gaps(found)
        listing.rows += [_row(each, record) for each in found]
    return listing


def verify_vault(
    store: Store,
    *,
    host: str | None,
    point: str | None,
    share: float,
    passphrase_file: str | None,
    cancelled: Callable[[], None],
) -> Verified:
    """Judge points as their acceptance did; read a share of the packs; with the passphrase open the trees.

    Raises:
        PointNotFound, HostNotFound: what was named is not there.
    """
    vault = open_vault(store)
    result = Verified()
    proven: set[bytes] = set()
    read: set[bytes] = set()
    problems: list[str] = []
    wanted = 0
    for record in _records(store, vault, host, problems):
        for found in _points(store, vault, record):
            if point is not None and found.id != point:
                continue
            wanted += 1
            cancelled()
            result.points += 1
            _verify_point(store, vault, record, found, proven, read, share, result)
    if point is not None and not wanted:
        raise PointNotFound(f"The vault holds no recovery point {point}.")
    result.damaged += [{"what": "host", "reason": problem, "points": []} for problem in problems]
    result.packs = len(proven)
    if passphrase_file is not None:
        _verify_tree(store, Path(passphrase_file), host, point, share, cancelled, result)
    return result


def _verify_point(
    store: Store,
    vault: OpenVault,
    record: HostRecord,
    found: FoundPoint,
    proven: set[bytes],
    read: set[bytes],
    share: float,
    result: Verified,
) -> None:
    if found.problem and found.verdict != Decision.QUARANTINED:
        result.damaged.append({"what": found.key, "reason": found.problem, "points": [found.id]})
        return
    verdict = judge(
        store,
        vault_id=vault.id,
        host=record.document.host,
        point_id=found.id,
        public=record.signing,
        proven=proven,
    )
    if verdict.decision is None:
        result.damaged.append({"what": found.key, "reason": verdict.reason, "points": [found.id]})
        return
    proven.update(pack.sha256 for pack in verdict.packs)
    for pack in verdict.packs:
        if _sampled(pack, share) and pack.sha256 not in read:
            read.add(pack.sha256)
            _read_pack(store, pack, found.id, result)


def _read_pack(store: Store, pack: PackRef, point: str, result: Verified) -> None:
    try:
        data = read_matching(store, pack.key, expect_sha256(pack.key, pack.sha256))
        result.bytes_read += len(data)
    except Damaged as error:
        result.damaged.append({"what": pack.key, "reason": error.message, "points": [point]})


def _verify_tree(
    store: Store,
    passphrase_file: Path,
    host: str | None,
    point: str | None,
    share: float,
    cancelled: Callable[[], None],
    result: Verified,
) -> None:
    """Open the tree of a point, and the blocks of the share of files."""
    opened = open_host(store, read_passphrase_file(passphrase_file), host=host, point=point or "latest")
    stored = opened.choose(point or "latest")

    def fail(path: bytes, reason: str) -> None:
        result.damaged.append({"what": shown(path), "reason": reason, "points": [stored.head.point]})

    with Fetcher(store, vault_id=opened.vault.id, parallel=8, cancelled=cancelled) as fetcher:
        checked: set[bytes] = set()
        batch: dict[bytes, tuple[Place, bytes]] = {}
        for entry, pieces in read_entries(read_root(opened.root_of(stored)), fetcher, (), fail):
            cancelled()
            for piece in pieces:
                if piece.place is not None and piece.place.id not in checked and piece.place.id[0] < share * 256:
                    checked.add(piece.place.id)
                    batch[piece.place.id] = (piece.place, entry.path)
            if len(batch) >= BLOCKS_AT_ONCE:
                _open_blocks(fetcher, batch, fail, result)
        _open_blocks(fetcher, batch, fail, result)


def _open_blocks(
    fetcher: Fetcher,
    batch: dict[bytes, tuple[Place, bytes]],
    fail: Callable[[bytes, str], None],
    result: Verified,
) -> None:
    """Fetch and open the blocks of a batch, and empty it; a bad one is named with the first file that needs it."""
    blocks = fetcher.start(place for place, _ in batch.values())()
    for block_id, (place, path) in batch.items():
        block = blocks[block_id]
        if isinstance(block, Damaged):
            fail(path, block.message)
        else:
            result.bytes_read += place.length
    batch.clear()


def _sampled(pack: PackRef, share: float) -> bool:
    return int.from_bytes(pack.sha256[:2], "little") < share * 65536


def _records(store: Store, vault: OpenVault, host: str | None, problems: list[str]) -> list[HostRecord]:
    hosts = host_ids(store)
    if host is not None:
        hosts = [each for each in hosts if host in {each, host_name(store, vault.id, each)}]
        if not hosts:
            kind = "id" if is_uuid(host) else "name"
            raise HostNotFound(f"The vault holds no host with the {kind} {host!r}.")
    found = []
    for each in hosts:
        try:
            found.append(read_host(store, vault_id=vault.id, host=each))
        except (NotTrusted, Damaged) as error:
            problems.append(error.message)
    return found


def _points(store: Store, vault: OpenVault, record: HostRecord) -> list[FoundPoint]:
    return points_of(store, vault_id=vault.id, host=record.document.host, public=record.signing, signer=vault.signer)


def _row(found: FoundPoint, record: HostRecord) -> dict[str, Any]:
    head = found.point.head if found.point else None
    return {
        "point": found.id,
        "host": record.document.host,
        "host_name": record.document.name,
        "seq": head.seq if head else 0,
        "created": head.created if head else "",
        "source": head.source if head else "",
        "files": head.files if head else 0,
        "logical_bytes": head.logical_bytes if head else 0,
        "new_bytes": head.new_bytes if head else 0,
        "stored_bytes": head.stored_bytes if head else 0,
        "warnings": head.warnings if head else 0,
        "consistency": head.consistency if head else "",
        "verdict": found.verdict,
        "problem": found.problem,
    }
