"""The stores a vault can lie in, and the one place that chooses."""

from __future__ import annotations

from common.vault.location import VaultLocation
from common.vault.store import Store, StoreCredentials
from common.vault.stores.directory import DirectoryStore
from common.vault.stores.memory import MemoryStore
from common.vault.stores.pacing import Pacer
from common.vault.stores.retrying import RetryingStore
from common.vault.stores.s3 import CredentialsSource, S3Store

__all__ = ["DirectoryStore", "MemoryStore", "Pacer", "RetryingStore", "S3Store", "open_store"]


def open_store(
    location: VaultLocation,
    credentials: StoreCredentials | CredentialsSource | None = None,
    *,
    create: bool = False,
    connections: int = 16,
    pacer: Pacer | None = None,
) -> Store:
    """The bare store at `location`; wrap it in `RetryingStore` where patience is wanted.

    `credentials` may be a callable that gives the newest ones; None takes the usual AWS environment or profile.
    `create` makes a missing folder (never a bucket). `pacer` limits the rate of what is put.
    """
    if location.path is not None:
        return DirectoryStore(location.path, create=create, pacer=pacer)
    source = credentials if callable(credentials) else lambda: credentials
    return S3Store(location, source, connections=connections, pacer=pacer)
