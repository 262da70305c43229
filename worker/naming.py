"""What a point names: list pages for exactly the packs it uses, and the index objects that cover them.

Pages and indexes of earlier points are named again where that is exact, so a head stays small and an unchanged host
writes nothing; where many small ones have gathered they are written anew as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from common.vault.documents import NamedObject
from common.vault.index import Index
from common.vault.pages import MAX_NAMED, MAX_RECORDS, PackRef, Page, PageKind, pages_of_packs, root_page
from common.vault.store import Store
from worker.upload import Uploader

MAX_INDEXES = 32
"""More index objects of one host are written anew as one a domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """`lists` and `indexes_root` as they go into the head; `all_…` what they stand for, root pages included."""

    lists: tuple[NamedObject, ...]
    lists_root: bool
    indexes: tuple[NamedObject, ...]
    indexes_root: bytes
    all_lists: tuple[NamedObject, ...]
    all_indexes: tuple[NamedObject, ...]


def name_everything(
    host: str,
    *,
    used: Mapping[tuple[str, bytes], int],
    pages: Sequence[Page],
    indexes: Sequence[tuple[NamedObject, Index]],
    uploader: Uploader,
    store: Store,
    random_bytes: Callable[[int], bytes],
) -> Named:
    """Choose and write what is missing. `used` maps (host, SHA-256) of each pack the point needs to its size."""
    lists, written = _pages(host, used, pages, random_bytes)
    for page in written:
        store.put(page.key, page.data)
    named_lists = tuple(page.named for page in lists)
    top, lists_root = named_lists, False
    if len(named_lists) > MAX_NAMED:
        root = root_page(host, PageKind.PAGES, named_lists, random_bytes)
        store.put(root.key, root.data)
        top, lists_root = (root.named,), True
    named_indexes = tuple(_indexes(host, used, indexes, uploader))
    indexes_root = b""
    extra: tuple[NamedObject, ...] = top if lists_root else ()
    if len(named_indexes) > MAX_NAMED:
        root = root_page(host, PageKind.INDEXES, named_indexes, random_bytes)
        store.put(root.key, root.data)
        indexes_root = root.named.sha256
        extra = (*extra, root.named)
    return Named(
        lists=top,
        lists_root=lists_root,
        indexes=() if indexes_root else named_indexes,
        indexes_root=indexes_root,
        all_lists=(*named_lists, *extra),
        all_indexes=named_indexes,
    )


def _pages(
    host: str,
    used: Mapping[tuple[str, bytes], int],
    pages: Sequence[Page],
    random_bytes: Callable[[int], bytes],
) -> tuple[list[Page], list[Page]]:
    """(pages to name, those of them that are new). A page is named again only if the point uses all of its packs."""
    exact = [
        page
        for page in {page.key: page for page in pages}.values()
        if page.packs
        and page.key.split("/")[1] == host
        and all((pack.host, pack.sha256) in used for pack in page.packs)
    ]
    exact.sort(key=lambda page: len(page.packs), reverse=True)
    full = sum(len(page.packs) >= MAX_RECORDS // 2 for page in exact)
    kept: list[Page] = []
    covered: set[tuple[str, bytes]] = set()
    for page in exact[: max(full, MAX_NAMED - 1)]:
        packs = {(pack.host, pack.sha256) for pack in page.packs}
        if not packs <= covered:
            kept.append(page)
            covered |= packs
    rest = [PackRef(owner, sha, size) for (owner, sha), size in sorted(used.items()) if (owner, sha) not in covered]
    fresh = pages_of_packs(host, rest, random_bytes)
    return [*kept, *fresh], fresh


def _indexes(
    host: str,
    used: Mapping[tuple[str, bytes], int],
    indexes: Sequence[tuple[NamedObject, Index]],
    uploader: Uploader,
) -> list[NamedObject]:
    """Indexes that cover a pack in use; written anew, one a domain, when there are too many."""
    covering = [(named, index) for named, index in indexes if any((index.host, sha) in used for sha, _ in index.packs)]
    own = [(named, index) for named, index in covering if index.host == host]
    if len(own) <= MAX_INDEXES:
        return [named for named, _ in covering]
    kept = [named for named, index in covering if index.host != host]
    for domain in sorted({index.domain_id for _, index in own}):
        rows = [
            row for _, index in own if index.domain_id == domain for row in index.rows() if (host, row.pack) in used
        ]
        kept.append(uploader.write_index(rows, domain)[0])
    return kept
