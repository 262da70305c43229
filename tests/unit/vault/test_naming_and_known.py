"""What a point names, and which blocks count as known."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from vault_rig import now

from common.ids import new_ulid, new_uuid
from common.secret import Secret
from common.vault import names
from common.vault.derive import DomainKeys
from common.vault.documents import NamedObject
from common.vault.index import Index, IndexRow, read_index, write_index
from common.vault.pages import MAX_NAMED, PackRef, Page, PageKind, pages_of_packs, read_page
from common.vault.stores import MemoryStore
from worker.known import ObjectCache, load_known
from worker.naming import MAX_INDEXES, Named, name_everything

if TYPE_CHECKING:
    from pathlib import Path

VAULT, HOST, OTHER_HOST, DOMAIN, FOREIGN = (new_uuid() for _ in range(5))
KEYS = {
    domain: DomainKeys.derive(vault_id=VAULT, domain_id=domain, secret=Secret(secrets.token_bytes(32)))
    for domain in (DOMAIN, HOST)
}
FOREIGN_KEYS = DomainKeys.derive(vault_id=VAULT, domain_id=FOREIGN, secret=Secret(secrets.token_bytes(32)))
CODEC = "zstd-1.5.7-l1"
SIZE = 100_000


@dataclass
class Writer:
    """The part of an uploader that naming uses, for real objects in a store."""

    store: MemoryStore
    written: list[tuple[str, list[IndexRow]]] = field(default_factory=list)

    def write_index(self, rows: list[IndexRow], domain_id: str) -> tuple[NamedObject, Index]:
        self.written.append((domain_id, rows))
        return stored_index(self.store, rows, domain_id)


def stored_index(
    store: MemoryStore, rows: list[IndexRow], domain: str, *, host: str = HOST
) -> tuple[NamedObject, Index]:
    keys = KEYS.get(domain, FOREIGN_KEYS)
    key = names.index(host, new_ulid())
    data = write_index(rows, host=host, object_key=key, keys=keys, codec=CODEC, random_bytes=secrets.token_bytes)
    store.put(key, data)
    return NamedObject(key, hashlib.sha256(data).digest()), read_index(data, object_key=key, keys=keys)


def stored_pages(store: MemoryStore, packs: list[bytes], *, host: str = HOST) -> list[Page]:
    pages = pages_of_packs(HOST, [PackRef(host, pack, SIZE) for pack in packs], secrets.token_bytes)
    for page in pages:
        store.put(page.key, page.data)
    return pages


def row(pack: bytes) -> IndexRow:
    return IndexRow(secrets.token_bytes(32), pack, SIZE, 38, 50)


def packs(count: int) -> list[bytes]:
    return [secrets.token_bytes(32) for _ in range(count)]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(now)


def name(
    store: MemoryStore,
    used: list[bytes],
    pages: list[Page],
    indexes: list[tuple[NamedObject, Index]],
    writer: Writer | None = None,
) -> Named:
    return name_everything(
        HOST,
        used={(HOST, pack): SIZE for pack in used},
        pages=pages,
        indexes=indexes,
        uploader=writer or Writer(store),  # type: ignore[arg-type]
        store=store,
        random_bytes=secrets.token_bytes,
    )


def packs_named(store: MemoryStore, named: Named) -> list[bytes]:
    lists = list(named.lists)
    if named.lists_root:
        (root,) = lists
        lists = list(read_page(root.key, store.get(root.key), PageKind.PAGES).objects)
    pages = [read_page(each.key, store.get(each.key), PageKind.PACKS) for each in lists]
    return sorted(pack.sha256 for page in pages for pack in page.packs)


def test_pages_that_are_used_whole_are_named_again_and_nothing_is_written(store: MemoryStore) -> None:
    used = packs(30)
    pages = stored_pages(store, used)
    before = len(list(store.list("")))
    named = name(store, used, pages, [])
    assert named.lists == tuple(page.named for page in pages)
    assert len(list(store.list(""))) == before


def test_a_page_with_a_pack_that_is_not_used_is_written_anew(store: MemoryStore) -> None:
    used = packs(30)
    pages = stored_pages(store, [*used, *packs(1)])
    named = name(store, used, pages, [])
    assert not {each.key for each in named.lists} & {page.key for page in pages}
    assert packs_named(store, named) == sorted(used)


@pytest.mark.parametrize("count", [1, MAX_NAMED - 1, MAX_NAMED, MAX_NAMED + 1, 40])
def test_many_small_pages_become_few(store: MemoryStore, count: int) -> None:
    used = packs(count)
    pages = [page for pack in used for page in stored_pages(store, [pack])]
    named = name(store, used, pages, [])
    assert len(named.lists) <= MAX_NAMED
    assert not named.lists_root
    assert packs_named(store, named) == sorted(used)


def test_more_than_16_full_pages_go_through_a_root_page(store: MemoryStore) -> None:
    used = packs(MAX_NAMED * 1000 + 1)
    named = name(store, used, [], [])
    assert named.lists_root
    assert len(named.lists) == 1
    assert len(named.all_lists) == MAX_NAMED + 2
    assert packs_named(store, named) == sorted(used)
    assert {each.key for each in named.all_lists} <= {info.key for info in store.list("")}


def test_overlapping_pages_are_not_all_named(store: MemoryStore) -> None:
    used = packs(20)
    large, small = stored_pages(store, used)[0], stored_pages(store, used[:5])[0]
    assert name(store, used, [small, large, small], []).lists == (large.named,)


@pytest.mark.parametrize("count", [1, MAX_NAMED, MAX_NAMED + 1, MAX_INDEXES])
def test_above_16_indexes_the_head_names_a_page_of_them(store: MemoryStore, count: int) -> None:
    used = packs(count)
    indexes = [stored_index(store, [row(pack)], DOMAIN) for pack in used]
    named = name(store, used, stored_pages(store, used), indexes)
    assert set(named.all_indexes) == {each for each, _ in indexes}
    assert bool(named.indexes_root) == (count > MAX_NAMED)
    if named.indexes_root:
        assert named.indexes == ()
        key = names.page(HOST, named.indexes_root)
        assert set(read_page(key, store.get(key), PageKind.INDEXES).objects) == set(named.all_indexes)
        assert key in {each.key for each in named.all_lists}
    else:
        assert set(named.indexes) == set(named.all_indexes)


def test_above_32_indexes_one_a_domain_is_written_with_what_is_used(store: MemoryStore) -> None:
    used, unused = packs(MAX_INDEXES + 1), packs(3)
    indexes = [stored_index(store, [row(pack)], DOMAIN if number % 2 else HOST) for number, pack in enumerate(used)]
    indexes.append(stored_index(store, [row(pack) for pack in [*unused, used[1]]], DOMAIN))
    writer = Writer(store)
    named = name(store, used, stored_pages(store, used), indexes, writer)
    assert len(named.indexes) == 2
    assert {domain for domain, _ in writer.written} == {DOMAIN, HOST}
    rows = [each for _, found in writer.written for each in found]
    assert {each.pack for each in rows} == set(used)
    assert {each.id for each in rows} == {
        each.id for _, index in indexes for each in index.rows() if each.pack in set(used)
    }


def test_an_index_whose_packs_are_not_used_is_not_named(store: MemoryStore) -> None:
    used, unused = packs(1), packs(1)
    indexes = [stored_index(store, [row(used[0])], DOMAIN), stored_index(store, [row(unused[0])], DOMAIN)]
    assert name(store, used, stored_pages(store, used), indexes).indexes == (indexes[0][0],)


# ── the known set ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cache(tmp_path: Path) -> ObjectCache:
    return ObjectCache(tmp_path / "objects")


def known(
    store: MemoryStore, cache: ObjectCache, pages: list[Page], indexes: list[tuple[NamedObject, Index]]
) -> tuple[object, ...]:
    return load_known(
        store,
        cache,
        lists=[page.named for page in pages],
        indexes=[each for each, _ in indexes],
        domains=KEYS,
    )


def test_a_block_is_known_by_an_index_and_a_page(store: MemoryStore, cache: ObjectCache) -> None:
    (pack,) = packs(1)
    wanted = row(pack)
    found, _, _ = known(store, cache, stored_pages(store, [pack]), [stored_index(store, [wanted], DOMAIN)])
    place = found.find(wanted.id)  # type: ignore[attr-defined]
    assert place is not None
    assert (place[0].sha256, place[0].stored, place[1:]) == (pack, True, (38, 50))


def test_a_pack_that_no_page_names_makes_nothing_known(store: MemoryStore, cache: ObjectCache) -> None:
    """An index is only a claim: its packs must be protected by a page that the lease names."""
    listed, unlisted = packs(2)
    wanted, unwanted = row(listed), row(unlisted)
    found, _, _ = known(store, cache, stored_pages(store, [listed]), [stored_index(store, [wanted, unwanted], DOMAIN)])
    assert found.find(wanted.id) is not None  # type: ignore[attr-defined]
    assert found.find(unwanted.id) is None  # type: ignore[attr-defined]


def test_an_index_of_a_foreign_domain_is_left_out(store: MemoryStore, cache: ObjectCache) -> None:
    (pack,) = packs(1)
    foreign, mine = row(pack), row(pack)
    indexes = [
        stored_index(store, [foreign], FOREIGN, host=OTHER_HOST),
        stored_index(store, [mine], DOMAIN),
    ]
    found, _, opened = known(store, cache, stored_pages(store, [pack]), indexes)
    assert found.find(foreign.id) is None  # type: ignore[attr-defined]
    assert found.find(mine.id) is not None  # type: ignore[attr-defined]
    assert [each for each, _ in opened] == [indexes[1][0]]  # type: ignore[attr-defined]


def test_what_is_damaged_is_left_out_and_the_rest_counts(store: MemoryStore, cache: ObjectCache) -> None:
    one, two = packs(2)
    first, second = row(one), row(two)
    pages = [*stored_pages(store, [one]), *stored_pages(store, [two])]
    indexes = [stored_index(store, [first], DOMAIN), stored_index(store, [second], DOMAIN)]
    for key in (pages[0].key, indexes[0][0].key):
        for version in store.versions(key):
            store.delete(key, version=version.version)
        store.put(key, b"garbage")
    found, read, opened = known(store, cache, pages, indexes)
    assert found.find(first.id) is None  # type: ignore[attr-defined]
    assert found.find(second.id) is not None  # type: ignore[attr-defined]
    assert ([page.key for page in read], len(opened)) == ([pages[1].key], 1)  # type: ignore[attr-defined]


def test_objects_are_fetched_once_and_a_damaged_copy_again(
    store: MemoryStore, cache: ObjectCache, tmp_path: Path
) -> None:
    (page,) = stored_pages(store, packs(2))
    assert cache.read(store, page.named) == page.data
    empty = MemoryStore(now)
    assert cache.read(empty, page.named) == page.data
    copy = tmp_path / "objects" / page.named.sha256.hex()
    copy.write_bytes(b"damaged")
    assert cache.read(store, page.named) == page.data
    assert copy.read_bytes() == page.data
    cache.only([])
    assert not copy.exists()
