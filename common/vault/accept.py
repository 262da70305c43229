"""Whether a recovery point that was written may count (V2): everything it names exists, and is what it should be.

Used by the coordinator after a commit, and by a standalone worker before it writes `received`. It reads heads, pages and
indexes, and asks the store for each pack's checksum; it needs no key but the host's public one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.errors import Damaged, FormatTooNew, NotTrusted
from common.vault import names
from common.vault.documents import Decision, NamedObject
from common.vault.pages import PackRef, Page, PageKind, read_page
from common.vault.points import Head, StoredPoint
from common.vault.reading import expect_sha256, is_proven, read_matching, read_oldest
from common.vault.store import Store

PARALLEL = 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """`decision` is None when the point does not hold at all: it is not kept in the catalogue."""

    decision: Decision | None
    reason: str = ""
    point: StoredPoint | None = None
    pages: tuple[Page, ...] = ()

    @property
    def packs(self) -> list[PackRef]:
        return [pack for page in self.pages for pack in page.packs]


def judge(
    store: Store,
    *,
    vault_id: str,
    host: str,
    point_id: str,
    public: Ed25519PublicKey,
    proven: Collection[bytes] = (),
    foreign: Collection[str] = (),
    fence: tuple[int, int] | None = None,
) -> Verdict:
    """Read a point back from the store and judge it.

    `proven` names packs that an accepted point of this host already needed; `foreign` the keys of packs of other hosts
    that the lease named; `fence` the lease's, when it is known. Store errors are raised: they say nothing of the point.
    """
    key = names.point(host, point_id)

    def accept(raw: bytes) -> StoredPoint:
        point = StoredPoint.parse(raw)
        point.verify(public, vault_id=vault_id, object_key=key)
        return point

    try:
        point = read_oldest(store, key, accept)
        pages = tuple(read_pages(store, point.head))
        for named in index_objects(store, point.head):
            read_matching(store, named.key, expect_sha256(named.key, named.sha256))
    except (Damaged, NotTrusted, FormatTooNew) as error:
        return Verdict(None, error.message)
    if fence is not None and (point.head.epoch, point.head.fence) != fence:
        return Verdict(None, "The point was written under another fence than the lease's.", point, pages)
    packs = [pack for page in pages for pack in page.packs]
    if not packs:
        return Verdict(None, "It names no pack: not even its list of files can be there.", point, pages)
    strangers = [pack.key for pack in packs if pack.host != host and pack.key not in foreign]
    if strangers:
        return Verdict(Decision.QUARANTINED, f"It names {strangers[0]} and the lease did not.", point, pages)
    missing = unproven(store, (pack for pack in packs if pack.sha256 not in proven))
    if missing:
        return Verdict(None, f"It needs {missing[0].key}, which the store does not hold whole.", point, pages)
    return Verdict(Decision.RECEIVED, "", point, pages)


def read_pages(store: Store, head: Head) -> list[Page]:
    """All pages of packs that a head names, through its root page if it has one. Raises Damaged."""
    named: Sequence[NamedObject] = head.list_objects
    if head.lists_root:
        if len(named) != 1:
            raise Damaged(f"The head of {head.key} names {len(named)} root pages.")
        named = _page(store, named[0], PageKind.PAGES).objects
    return [_page(store, each, PageKind.PACKS) for each in {each.key: each for each in named}.values()]


def index_objects(store: Store, head: Head) -> list[NamedObject]:
    """All index objects that a head names, through its root page if it has one. Raises Damaged."""
    if head.indexes_root:
        root = NamedObject(names.page(head.host, head.indexes_root), head.indexes_root)
        if head.indexes:
            raise Damaged(f"The head of {head.key} names index objects and a page of them.")
        return list(_page(store, root, PageKind.INDEXES).objects)
    return list(head.index_objects)


def unproven(store: Store, packs: Iterable[PackRef]) -> list[PackRef]:
    """Packs that the store does not hold with exactly these bytes."""
    wanted = list(packs)
    with ThreadPoolExecutor(PARALLEL, "prove") as pool:
        holds = list(pool.map(lambda pack: is_proven(store, pack.key, pack.sha256, pack.size), wanted))
    return [pack for pack, held in zip(wanted, holds, strict=True) if not held]


def _page(store: Store, named: NamedObject, kind: PageKind) -> Page:
    return read_matching(store, named.key, lambda data: read_page(named.key, data, kind))
