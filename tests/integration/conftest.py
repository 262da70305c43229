"""Real servers for the tests, started once a session the way `stateward up` starts them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from coordinator.embedded import (
    DataFolder,
    DataLayout,
    QueueAccess,
    StoreAccess,
    Supervisor,
    create_bucket,
    start_seaweedfs,
    start_valkey,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def embedded_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataLayout]:
    """The data folder of the session's servers. A space and a comma in its name, because people have them."""
    with DataFolder(tmp_path_factory.mktemp("embedded") / "data, of tests") as folder:
        yield folder.layout


@pytest.fixture(scope="session")
def supervisor(embedded_folder: DataLayout) -> Iterator[Supervisor]:
    with Supervisor(embedded_folder.run) as supervisor:
        yield supervisor


@pytest.fixture(scope="session")
def valkey(supervisor: Supervisor, embedded_folder: DataLayout) -> QueueAccess:
    return start_valkey(supervisor, embedded_folder)


@pytest.fixture(scope="session")
def seaweedfs(supervisor: Supervisor, embedded_folder: DataLayout) -> StoreAccess:
    return start_seaweedfs(supervisor, embedded_folder)


@pytest.fixture
def bucket(seaweedfs: StoreAccess) -> str:
    """A new bucket with versions and locks."""
    name = f"vault-{secrets.token_hex(6)}"
    create_bucket(seaweedfs, name)
    return name
