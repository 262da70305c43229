"""The stores that need no server, against the contract."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store_contract import StoreContract, VersionedContract

from common.errors import BucketMissing, NoSpace, StoreDenied, StoreUnavailable
from common.vault.stores import DirectoryStore, MemoryStore, RetryingStore

if TYPE_CHECKING:
    from common.vault.store import Store


def now() -> datetime:
    return datetime.now(UTC)


class TestMemoryStore(VersionedContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore(now)

    def overwrite(self, store: Store, key: str, data: bytes) -> None:
        assert isinstance(store, MemoryStore)
        store.overwrite(key, data)

    def hide(self, store: Store, key: str) -> None:
        assert isinstance(store, MemoryStore)
        store.overwrite(key, None)


class TestRetryingStore(StoreContract):
    """A decorator of the port keeps the port's contract."""

    @pytest.fixture
    def store(self) -> Store:
        return RetryingStore(MemoryStore(now), sleep=lambda _seconds: None, random=lambda: 0.5)


class TestDirectoryStore(StoreContract):
    shows_checksums = False

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return DirectoryStore(tmp_path / "vault", create=True)

    def test_a_folder_that_is_missing_is_no_bucket(self, tmp_path: Path) -> None:
        with pytest.raises(BucketMissing):
            DirectoryStore(tmp_path / "missing")

    def test_nothing_is_left_of_a_put_that_failed(self, store: Store, tmp_path: Path) -> None:
        store.put("key", b"1")
        with pytest.raises(Exception, match="already holds"):
            store.put("key", b"2")
        assert [path.name for path in (tmp_path / "vault").rglob("*") if path.is_file()] == ["key"]

    @pytest.mark.parametrize(
        ("number", "error"),
        [
            (errno.ENOSPC, NoSpace),
            (errno.EDQUOT, NoSpace),
            (errno.EACCES, StoreDenied),
            (errno.EROFS, StoreDenied),
            (errno.EIO, StoreUnavailable),
            (errno.ESTALE, StoreUnavailable),
        ],
    )
    @pytest.mark.parametrize("call", ["write", "fsync", "link"])
    def test_an_error_of_the_file_system_is_ours_and_leaves_nothing(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        error: type[Exception],
        call: str,
    ) -> None:
        def fails(*_ignored: object) -> None:
            raise OSError(number, os.strerror(number))

        store.put("folder/there", b"1")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails)
            with pytest.raises(error):
                store.put("folder/key", b"2")
        assert [path.name for path in (tmp_path / "vault").rglob("*") if path.is_file()] == ["there"]
        store.put("folder/key", b"2")

    def test_every_new_folder_is_made_durable(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a power cut a folder that was not synced may be missing, and with it all that points need."""
        root = tmp_path / "vault"
        synced: list[tuple[Path, list[str]]] = []
        fsync = os.fsync

        def noted(handle: int) -> None:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            if path.is_dir():
                synced.append((path, [each.name for each in path.iterdir()]))
            fsync(handle)

        monkeypatch.setattr(os, "fsync", noted)
        store.put("a/b/c", b"1")
        assert any(path == root and "a" in held for path, held in synced)
        assert any(path == root / "a" and "b" in held for path, held in synced)
        assert synced[-1] == (root / "a/b", ["c"])
