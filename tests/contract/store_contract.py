"""What every store keeps: the contract of `common.vault.store`, as a class to subclass with a fixture `store`.

Whoever writes a store subclasses `StoreContract`; one with versions subclasses `VersionedContract` too and says how
somebody with the right to PUT and DELETE gets past the port.
"""

from __future__ import annotations

import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest

from common.errors import AlreadyExists, Damaged, StatewardError
from common.vault.reading import expect_sha256, is_proven, read_matching, read_oldest
from common.vault.store import ObjectMissing, Store

AT_ONCE = 8


class StoreContract:
    """No test has a key that is a folder of another (`a` and `a/b`): vaults have none, and a store on folders refuses it."""

    shows_checksums = True
    """Whether `head` shows the SHA-256 that the store computed."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    def test_what_was_put_is_read(self, store: Store) -> None:
        for key, data in (("one", b"1"), ("a/b/c.d_e-f", b""), ("a/b/c", secrets.token_bytes(100_000))):
            store.put(key, data)
            assert store.get(key) == data

    def test_every_kind_of_buffer_can_be_put(self, store: Store) -> None:
        data = bytearray(b"0123456789")
        store.put("bytearray", data)
        store.put("memoryview", memoryview(data)[2:5])
        data[:] = b"changed by"
        assert store.get("bytearray") == b"0123456789"
        assert store.get("memoryview") == b"234"
        data.clear()

    def test_a_key_is_written_once(self, store: Store) -> None:
        store.put("key", b"first")
        for again in (b"second", b"first"):
            with pytest.raises(AlreadyExists):
                store.put("key", again)
        assert store.get("key") == b"first"
        assert len(store.versions("key")) == 1

    def test_of_puts_at_once_exactly_one_wins(self, store: Store) -> None:
        for turn in range(2):
            key = f"contested/{turn}"
            start = Barrier(AT_ONCE)

            def attempt(number: int, key: str = key, start: Barrier = start) -> bool:
                start.wait()
                try:
                    store.put(key, b"%d" % number * 1000)
                except AlreadyExists:
                    return False
                return True

            with ThreadPoolExecutor(AT_ONCE) as pool:
                won = list(pool.map(attempt, range(AT_ONCE)))
            assert won.count(True) == 1
            assert store.get(key) == b"%d" % won.index(True) * 1000

    @pytest.mark.parametrize(
        ("offset", "length", "wanted"),
        [
            (0, None, b"0123456789"),
            (3, None, b"3456789"),
            (3, 4, b"3456"),
            (0, 10, b"0123456789"),
            (9, 1, b"9"),
            (8, 100, b"89"),
            (0, 0, b""),
            (4, 0, b""),
            (10, None, b""),
            (10, 1, b""),
            (1000, None, b""),
            (1000, 5, b""),
        ],
    )
    def test_ranges(self, store: Store, offset: int, length: int | None, wanted: bytes) -> None:
        store.put("digits", b"0123456789")
        assert store.get("digits", offset=offset, length=length) == wanted

    def test_a_range_of_an_empty_object_is_empty(self, store: Store) -> None:
        store.put("nothing", b"")
        assert store.get("nothing", offset=0, length=5) == b""

    def test_what_is_not_there_is_missing(self, store: Store) -> None:
        store.put("folder/there", b"1")
        for key in ("gone", "folder/gone", "folder", "folder/there/below"):
            with pytest.raises(ObjectMissing):
                store.get(key)
            with pytest.raises(ObjectMissing):
                store.get(key, offset=5, length=5)
            with pytest.raises(ObjectMissing):
                store.head(key)
            assert store.versions(key) == []
        with pytest.raises(ObjectMissing):
            store.get("folder/there", version="not-a-version")
        assert list(store.list("gone")) == []

    def test_head_says_what_is_stored(self, store: Store) -> None:
        data = secrets.token_bytes(70_000)
        store.put("object", data, sha256=hashlib.sha256(data).digest())
        info = store.head("object")
        assert (info.key, info.size) == ("object", len(data))
        assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=5)
        assert info.sha256 == (hashlib.sha256(data).digest() if self.shows_checksums else None)
        assert is_proven(store, "object", hashlib.sha256(data).digest(), len(data))
        assert not is_proven(store, "object", hashlib.sha256(b"other").digest(), len(data))

    def test_a_body_that_does_not_match_its_sha256_is_not_stored(self, store: Store) -> None:
        if self.shows_checksums:
            with pytest.raises((StatewardError, ValueError)):
                store.put("object", b"body", sha256=hashlib.sha256(b"another").digest())
            with pytest.raises(ObjectMissing):
                store.head("object")
        else:
            store.put("object", b"body", sha256=hashlib.sha256(b"another").digest())
            assert not is_proven(store, "object", hashlib.sha256(b"another").digest(), 4)

    def test_lists_are_in_byte_order_of_the_keys(self, store: Store) -> None:
        keys = ["b/1", "a-b", "a/2", "a/10", "a/b/c", "a.b", "aa", "a/b-c", "B/1"]
        for key in keys:
            store.put(key, b"x" * len(key))
        assert [(info.key, info.size) for info in store.list("")] == [(key, len(key)) for key in sorted(keys)]

    def test_a_prefix_is_any_beginning_of_a_key(self, store: Store) -> None:
        keys = ["a/1", "a/2", "a/20/x", "ab/1", "b"]
        for key in keys:
            store.put(key, b"")
        for prefix in ("a", "a/", "a/2", "a/20", "a/20/", "ab/1", "b", "c", "a/1/"):
            wanted = [key for key in keys if key.startswith(prefix)]
            assert [info.key for info in store.list(prefix)] == wanted
            assert [info.key for info in store.list(prefix, hidden=True)] == wanted

    def test_what_is_put_while_a_list_is_read_breaks_nothing(self, store: Store) -> None:
        for number in range(20):
            store.put(f"l/{number:02}", b"")
        seen = []
        for info in store.list("l/"):
            seen.append(info.key)
            if len(seen) == 5:
                store.put("l/99", b"")
        assert [key for key in seen if key != "l/99"] == [f"l/{number:02}" for number in range(20)]

    def test_a_deleted_version_is_gone_and_deleting_it_again_is_no_error(self, store: Store) -> None:
        store.put("object", b"1")
        ((version),) = store.versions("object")
        assert (version.key, version.size, version.latest, version.delete_marker) == ("object", 1, True, False)
        assert store.get("object", version=version.version) == b"1"
        store.delete("object", version=version.version)
        store.delete("object", version=version.version)
        assert store.versions("object") == []
        with pytest.raises(ObjectMissing):
            store.get("object")
        store.put("object", b"2")
        assert store.get("object") == b"2"

    def test_versions_are_those_of_exactly_this_key(self, store: Store) -> None:
        store.put("object", b"1")
        store.put("object2", b"2")
        store.put("object.3", b"3")
        assert [each.key for each in store.versions("object")] == ["object"]

    def test_calls_may_come_from_many_threads(self, store: Store) -> None:
        def work(number: int) -> bool:
            data = secrets.token_bytes(5000)
            store.put(f"many/{number}", data)
            return store.get(f"many/{number}") == data and store.head(f"many/{number}").size == len(data)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            assert all(pool.map(work, range(40)))
        assert len(list(store.list("many/"))) == 40

    @pytest.mark.parametrize("key", ["", "/a", "a//b", "a/", "../a", "a/../b", "./a", "a b", "ä", "a\n", "x" * 513])
    def test_a_key_of_another_form_is_refused(self, store: Store, key: str) -> None:
        with pytest.raises(ValueError, match="not an object key"):
            store.put(key, b"")
        with pytest.raises(ValueError, match="not an object key"):
            store.get(key)


class VersionedContract(StoreContract):
    """A store that keeps what is overwritten or deleted."""

    def overwrite(self, store: Store, key: str, data: bytes) -> None:
        """As somebody with the right to PUT."""
        raise NotImplementedError

    def hide(self, store: Store, key: str) -> None:
        """As somebody with the right to DELETE without a version."""
        raise NotImplementedError

    def test_versions_come_newest_first(self, store: Store) -> None:
        store.put("object", b"1")
        self.overwrite(store, "object", b"22")
        self.overwrite(store, "object", b"333")
        versions = store.versions("object")
        assert [(each.size, each.latest, each.delete_marker) for each in versions] == [
            (3, True, False),
            (2, False, False),
            (1, False, False),
        ]
        assert [store.get("object", version=each.version) for each in versions] == [b"333", b"22", b"1"]
        assert store.get("object") == b"333"
        assert store.head("object").size == 3
        assert store.head("object", version=versions[-1].version).size == 1
        assert [info.key for info in store.list("")] == ["object"]

    def test_a_delete_marker_hides_and_keeps(self, store: Store) -> None:
        store.put("object", b"first")
        self.hide(store, "object")
        with pytest.raises(ObjectMissing):
            store.get("object")
        with pytest.raises(ObjectMissing):
            store.head("object")
        assert list(store.list("object")) == []
        marker, first = store.versions("object")
        assert (marker.delete_marker, marker.latest) == (True, True)
        assert (first.delete_marker, first.latest) == (False, False)
        assert store.get("object", version=first.version) == b"first"
        with pytest.raises(StatewardError):
            store.get("object", version=marker.version)
        store.delete("object", version=marker.version)
        assert store.get("object") == b"first"

    def test_what_is_hidden_can_be_listed(self, store: Store) -> None:
        for key in ("h/b", "h/a/1", "h/a-", "h/c", "other"):
            store.put(key, b"first")
        self.overwrite(store, "h/b", b"other bytes")
        self.hide(store, "h/b")
        self.hide(store, "h/a/1")
        self.overwrite(store, "h/c", b"other bytes")
        assert [info.key for info in store.list("h/")] == ["h/a-", "h/c"]
        shown = [(info.key, info.size) for info in store.list("h/", hidden=True)]
        assert shown == [("h/a-", 5), ("h/a/1", 5), ("h/b", 11), ("h/c", 11)]

    def test_the_version_that_matches_is_found(self, store: Store) -> None:
        wanted = hashlib.sha256(b"right").digest()
        store.put("object", b"right")
        self.overwrite(store, "object", b"wrong")
        assert read_matching(store, "object", expect_sha256("object", wanted)) == b"right"
        assert read_oldest(store, "object", bytes) == b"right"
        assert is_proven(store, "object", wanted, 5)
        self.hide(store, "object")
        assert read_matching(store, "object", expect_sha256("object", wanted)) == b"right"
        assert read_oldest(store, "object", bytes) == b"right"
        assert read_matching(store, "object", bytes, offset=1, length=2) in {b"ig", b"ro"}
        with pytest.raises(Damaged):
            read_matching(store, "object", expect_sha256("object", bytes(32)))
