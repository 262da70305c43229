"""The known set: which sealed blocks the store holds for this job, and where.

A block is known only if an index object that the lease names lists it in a pack that a list page named by the lease
names; or if this job put it there. The local cache saves work and never decides. An opened index stays packed
(44 bytes a block); blocks of this job move from a dict into such an index with every bracket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.errors import Damaged
from common.privatefiles import make_private_folder, write_private
from common.vault.derive import DomainKeys
from common.vault.documents import NamedObject
from common.vault.index import Index, index_domain, read_index
from common.vault.packs import PackName
from common.vault.pages import Page, PageKind, read_page
from common.vault.reading import expect_sha256, read_matching
from common.vault.store import Store

FoundAt = tuple[PackName, int, int]
"""Pack, offset and length of a sealed block."""


class KnownBlocks:
    """Not safe for several threads: its owner holds a lock."""

    def __init__(self) -> None:
        self._indexes: list[Index] = []
        self._packs: dict[bytes, PackName] = {}
        self._fresh: dict[bytes, FoundAt] = {}

    def trust(self, index: Index, packs: Mapping[bytes, PackName]) -> None:
        """Count blocks of `index` as known as far as they lie in `packs` (by SHA-256)."""
        self._indexes.append(index)
        self._packs.update(packs)

    def add(self, block_id: bytes, pack: PackName, offset: int, length: int) -> None:
        """A block that this job put, or is about to put, into a pack."""
        self._fresh[block_id] = (pack, offset, length)

    def settle(self, index: Index, packs: Iterable[PackName]) -> None:
        """An index of this job has been written: its blocks leave the dict."""
        self._indexes.append(index)
        self._packs.update((pack.sha256, pack) for pack in packs)
        for row in index.rows():
            self._fresh.pop(row.id, None)

    def find(self, block_id: bytes) -> FoundAt | None:
        found = self._fresh.get(block_id)
        if found is not None:
            return found
        for index in self._indexes:
            row = index.find(block_id)
            if row is not None:
                pack = self._packs.get(row.pack)
                if pack is not None:
                    return pack, row.offset, row.length
        return None


class ObjectCache:
    """Index objects and list pages, fetched once and kept by SHA-256. Loss or damage costs a GET."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_private_folder(folder)

    def read(self, store: Store, named: NamedObject) -> bytes:
        """Raises Damaged when neither the cache nor any version in the store has these bytes."""
        path = self._folder / named.sha256.hex()
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).digest() == named.sha256:
                return data
        except OSError:
            pass
        data = read_matching(store, named.key, expect_sha256(named.key, named.sha256))
        self.keep(data)
        return data

    def keep(self, data: bytes) -> None:
        write_private(self._folder / hashlib.sha256(data).hexdigest(), data)

    def only(self, named: Iterable[NamedObject]) -> None:
        """Forget everything else."""
        wanted = {each.sha256.hex() for each in named}
        for path in self._folder.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)


def load_known(
    store: Store,
    cache: ObjectCache,
    *,
    lists: Iterable[NamedObject],
    indexes: Iterable[NamedObject],
    domains: Mapping[str, DomainKeys],
) -> tuple[KnownBlocks, list[Page], list[tuple[NamedObject, Index]]]:
    """The known set of a lease, its pages, and its indexes.

    What cannot be read is left out, and so are indexes of domains this host has no secret of: their blocks are sent
    again. Store errors are raised.
    """
    pages: list[Page] = []
    packs: dict[bytes, PackName] = {}
    for named in lists:
        try:
            page = read_page(named.key, cache.read(store, named), PageKind.PACKS)
        except Damaged:
            continue
        pages.append(page)
        for pack in page.packs:
            packs[pack.sha256] = PackName(pack.host, pack.sha256, pack.size, stored=True)
    known = KnownBlocks()
    opened = []
    for named in indexes:
        try:
            data = cache.read(store, named)
            keys = domains.get(index_domain(data, named.key))
            if keys is None:
                continue
            index = read_index(data, object_key=named.key, keys=keys)
        except Damaged:
            continue
        known.trust(index, {sha: packs[sha] for sha, _ in index.packs if sha in packs})
        opened.append((named, index))
    return known, pages, opened
