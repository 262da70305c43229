"""The contract of stores on a real SeaweedFS through S3, and the errors that people meet."""

from __future__ import annotations

import importlib.util
import secrets
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from common.errors import BucketMissing, StoreDenied, StoreUnavailable, TlsExpected
from common.secret import Secret
from common.vault.location import VaultLocation
from common.vault.store import ObjectMissing, Store, StoreCredentials
from common.vault.stores import S3Store, open_store
from coordinator.embedded import create_bucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinator.embedded import StoreAccess

_SUITE = importlib.util.spec_from_file_location(
    "store_contract", Path(__file__).parents[1] / "contract" / "store_contract.py"
)
assert _SUITE is not None
assert _SUITE.loader is not None
store_contract = importlib.util.module_from_spec(_SUITE)
sys.modules.setdefault("store_contract", store_contract)
_SUITE.loader.exec_module(store_contract)


def location(seaweedfs: StoreAccess, bucket: str, *, prefix: str = "", endpoint: str = "") -> VaultLocation:
    return VaultLocation(
        scheme="s3",
        bucket=bucket,
        prefix=prefix,
        endpoint=endpoint or seaweedfs.endpoint,
        region=seaweedfs.region,
    )


def credentials(seaweedfs: StoreAccess) -> StoreCredentials:
    return StoreCredentials(access_key=seaweedfs.janitor_key, secret_key=seaweedfs.janitor_secret)


class TestS3Store(store_contract.VersionedContract):  # type: ignore[misc, name-defined]
    """A place in a bucket with versions. Overwrites and delete markers come from a client of their own, past the port."""

    @pytest.fixture
    def store(self, seaweedfs: StoreAccess, one_bucket: str) -> Store:
        self.seaweedfs, self.bucket, self.prefix = seaweedfs, one_bucket, f"vaults/{secrets.token_hex(6)}"
        return open_store(location(seaweedfs, one_bucket, prefix=self.prefix), credentials(seaweedfs))

    def overwrite(self, store: Store, key: str, data: bytes) -> None:
        client = self.seaweedfs.janitor()
        client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}", Body=data)
        client.close()

    def hide(self, store: Store, key: str) -> None:
        client = self.seaweedfs.janitor()
        client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}")
        client.close()

    def test_a_prefix_keeps_vaults_apart(self, seaweedfs: StoreAccess, bucket: str) -> None:
        store = open_store(location(seaweedfs, bucket), credentials(seaweedfs))
        one = open_store(location(seaweedfs, bucket, prefix="one"), credentials(seaweedfs))
        two = open_store(location(seaweedfs, bucket, prefix="one/two"), credentials(seaweedfs))
        one.put("key", b"1")
        two.put("key", b"2")
        assert one.get("key") == b"1"
        assert [info.key for info in two.list("")] == ["key"]
        assert sorted(info.key for info in store.list("")) == ["one/key", "one/two/key"]
        assert [each.size for each in one.versions("key")] == [1]

    def test_a_list_has_more_than_one_page(self, store: Store) -> None:
        keys = [f"page/{number:04}" for number in range(1010)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))
        assert [info.key for info in store.list("page/")] == keys


@pytest.fixture(scope="module")
def one_bucket(seaweedfs: StoreAccess) -> str:
    """Buckets take a second each; every test of the suite has a prefix of its own."""
    name = f"contract-{secrets.token_hex(6)}"
    create_bucket(seaweedfs, name)
    return name


def every_call(store: Store) -> list[Callable[[], object]]:
    """Each call of the port, to be made one after the other."""
    return [
        lambda: store.put("key", b"1"),
        lambda: store.get("key"),
        lambda: store.head("key"),
        lambda: list(store.list("")),
        lambda: store.versions("key"),
    ]


def assert_every_call_raises(store: Store, error: type[Exception]) -> None:
    for call in every_call(store):
        with pytest.raises(error):
            call()


def test_a_wrong_access_key_is_denied(seaweedfs: StoreAccess, one_bucket: str) -> None:
    wrong = StoreCredentials(access_key="nobody", secret_key=seaweedfs.janitor_secret)
    assert_every_call_raises(open_store(location(seaweedfs, one_bucket), wrong), StoreDenied)


def test_a_wrong_secret_is_denied_and_not_shown(seaweedfs: StoreAccess, one_bucket: str) -> None:
    wrong = StoreCredentials(access_key=seaweedfs.janitor_key, secret_key=Secret("not-the-secret"))
    store = open_store(location(seaweedfs, one_bucket), wrong)
    assert_every_call_raises(store, StoreDenied)
    with pytest.raises(StoreDenied) as caught:
        store.get("key")
    assert "not-the-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_missing_bucket_is_named(seaweedfs: StoreAccess) -> None:
    store = open_store(location(seaweedfs, "no-such-bucket"), credentials(seaweedfs))
    with pytest.raises(BucketMissing, match="no-such-bucket"):
        list(store.list(""))
    with pytest.raises(BucketMissing, match="no-such-bucket"):
        store.put("key", b"1")
    with pytest.raises(BucketMissing, match="no-such-bucket"):
        store.get("key")


def test_nothing_listens_at_the_endpoint(seaweedfs: StoreAccess, one_bucket: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = open_store(location(seaweedfs, one_bucket, endpoint=endpoint), credentials(seaweedfs))
        assert_every_call_raises(store, StoreUnavailable)


def test_an_endpoint_that_never_answers_is_given_up(seaweedfs: StoreAccess, one_bucket: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        at = location(seaweedfs, one_bucket, endpoint=endpoint)
        store = S3Store(at, lambda: credentials(seaweedfs), timeout_s=0.2)
        with pytest.raises(StoreUnavailable):
            store.get("key")


def test_https_to_a_server_that_speaks_http(seaweedfs: StoreAccess, one_bucket: str) -> None:
    endpoint = seaweedfs.endpoint.replace("http://", "https://")
    store = open_store(location(seaweedfs, one_bucket, endpoint=endpoint), credentials(seaweedfs))
    assert_every_call_raises(store, TlsExpected)


def test_refreshed_credentials_are_used_at_once(seaweedfs: StoreAccess, one_bucket: str) -> None:
    given = [StoreCredentials(access_key="nobody", secret_key=Secret("nothing")), credentials(seaweedfs)]
    store = S3Store(location(seaweedfs, one_bucket), lambda: given[0])
    with pytest.raises(StoreDenied):
        store.put("key", b"1")
    given.pop(0)
    store.put("key", b"1")
    assert store.get("key") == b"1"
    with pytest.raises(ObjectMissing):
        store.get("another")
