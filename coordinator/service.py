"""What every part of the coordinator is given: one object, built once by the composition root."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from common.contracts.jobs import StorageCredentials
from common.vault.location import VaultLocation
from common.vault.store import Store
from coordinator.clock import Clock
from coordinator.db import Database
from coordinator.keys import CoordinatorKeys
from coordinator.metrics import ProcessMetrics
from coordinator.settings import Settings


class StoragePort(Protocol):
    """The store as the coordinator needs it; every call may raise StoreUnavailable or StoreDenied."""

    def location(self, bucket: str) -> VaultLocation: ...

    def make_bucket(self, bucket: str) -> None:
        """With object lock and versioning. May be repeated."""
        ...

    def store(self, url: str) -> Store:
        """The vault at `url`, with the janitor's rights."""
        ...

    def session(self, *, policy: str, name: str) -> StorageCredentials:
        """Credentials of the broker, narrowed by the policy document."""
        ...


class QueueUsersPort(Protocol):
    """Users of the queue; every call may be repeated and may raise QueueUnavailable."""

    def add(self, host_id: str, public_key: bytes) -> None: ...

    def remove(self, host_id: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    settings: Settings
    db: Database
    keys: CoordinatorKeys
    storage: StoragePort
    queue_users: QueueUsersPort | None
    """None: hosts are reached by HTTPS alone."""
    metrics: ProcessMetrics
    clock: Clock
    public_url: str
    outbox_written: threading.Event = field(default_factory=threading.Event)
    """Set after a commit that wrote to the outbox: the publisher need not wait for its next look."""
    points_committed: threading.Event = field(default_factory=threading.Event)
    """Set after a commit that gave the janitor something to judge."""
