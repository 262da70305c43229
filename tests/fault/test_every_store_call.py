"""Store call 1, 2, 3 … fails, until a run meets no fault: nothing half-done counts, and the next run is whole."""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING

import pytest
from faults import FaultyStore, When, check_vault
from vault_rig import PASSPHRASE, Rig, assert_same, now
from worker_trees import make_every_kind

import common.vault.packs
import worker.upload
from common.errors import StatewardError
from common.vault.documents import Immutability
from common.vault.location import VaultLocation
from common.vault.stores import MemoryStore, RetryingStore
from worker.recovery import open_host
from worker.standalone import find_pinned, initialise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARK = b"plain text that must not be found in any object"
ENOUGH = 400
"""More calls than any run here makes: a loop that gets here never ends."""


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many packs, brackets and index objects from few bytes."""
    monkeypatch.setattr(common.vault.packs, "MIN_CLOSE", 30_000)
    monkeypatch.setattr(common.vault.packs, "MAX_CLOSE", 40_000)
    monkeypatch.setattr(worker.upload, "BRACKET_PACKS", 2)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A source, and a vault without a point."""
    rig = Rig.make(tmp_path_factory.mktemp("empty"))
    fill(rig.source)
    return rig


def fill(source: Path) -> None:
    make_every_kind(source)
    (source / "marked").write_bytes(MARK)
    (source / "larger").write_bytes(secrets.token_bytes(40_000) + MARK)
    (source / "shadow").write_bytes(secrets.token_bytes(3000))


@pytest.fixture(scope="module")
def used(empty: Rig, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A vault with two points, and a source that has changed since."""
    folder = tmp_path_factory.mktemp("used")
    (folder / "source").mkdir()
    rig = empty.copy(folder, source=folder / "source")
    fill(rig.source)
    rig.backup()
    (rig.source / "folder/new").write_bytes(secrets.token_bytes(30_000))
    rig.backup()
    (rig.source / "marked").write_bytes(MARK * 2)
    (rig.source / "larger").unlink()
    (rig.source / "newer").write_bytes(secrets.token_bytes(30_000))
    return rig


def copies(rig: Rig, folder: Path) -> Iterator[tuple[int, Path, Rig]]:
    for nth in range(1, ENOUGH):
        place = folder / str(nth)
        place.mkdir()
        yield nth, place, rig.copy(place)
    pytest.fail("the loop does not end")


def loop(rig: Rig, folder: Path, when: When, *, for_good: bool) -> int:
    for nth, place, copy in copies(rig, folder):
        faulty = FaultyStore(copy.store, nth, when, for_good)
        before = len(copy.opened().points)
        failed = False
        try:
            copy.backup(faulty)
        except StatewardError:
            failed = True
        assert failed <= (faulty.fired > 0)
        checked = check_vault(copy.store, copy.keys, plain=[MARK])
        assert len(checked.points) in {before, before + 1} if failed else {before + 1}
        copy.backup()
        check_vault(copy.store, copy.keys, plain=[MARK])
        assert copy.opened().problems == []
        copy.assert_restores(place / "restored")
        if not faulty.fired:
            return nth
    raise AssertionError


@pytest.mark.parametrize(("when", "for_good"), [(When.BEFORE, True), (When.AFTER, False)])
def test_backup_with_a_fault_at_every_call(used: Rig, tmp_path: Path, when: When, for_good: bool) -> None:
    assert loop(used, tmp_path, when, for_good=for_good) > 20


def test_first_backup_with_a_fault_at_every_call(empty: Rig, tmp_path: Path) -> None:
    assert loop(empty, tmp_path, When.BEFORE, for_good=False) > 15


def test_patience_hides_a_single_fault(used: Rig, tmp_path: Path) -> None:
    """With retries around it, one failing call ends nothing, and every answer that was lost is found out."""
    for nth, place, copy in copies(used, tmp_path):
        faulty = FaultyStore(copy.store, nth, When.AFTER)
        patient = RetryingStore(faulty, sleep=lambda _seconds: None, random=lambda: 0.5)
        copy.backup(patient)
        check_vault(copy.store, copy.keys, plain=[MARK])
        assert copy.opened().problems == []
        if not faulty.fired:
            copy.assert_restores(place / "restored")
            return


def test_restore_with_a_fault_at_every_call(used: Rig, tmp_path: Path) -> None:
    rig = used.copy(tmp_path)
    rig.backup()
    for nth in itertools.count(1):
        assert nth < ENOUGH
        faulty = FaultyStore(rig.store, nth)
        to = tmp_path / f"restored-{nth}"
        try:
            rig.restore(to, faulty)
        except StatewardError:
            assert faulty.fired
            whole_or_absent(rig.source, to)
        else:
            assert_same(rig.source, to)
        rig.assert_restores(tmp_path / f"again-{nth}")
        if not faulty.fired:
            return


def whole_or_absent(source: Path, restored: Path) -> None:
    """Every regular file that has a name is whole, and nothing else is there."""
    if not restored.exists():
        return
    for path in restored.rglob("*"):
        original = source / path.relative_to(restored)
        assert original.exists() or original.is_symlink(), f"{path} is left over"
        if path.is_file() and not path.is_symlink():
            assert path.read_bytes() == original.read_bytes()


@pytest.mark.parametrize("when", When)
def test_init_with_a_fault_at_every_put(tmp_path: Path, when: When) -> None:
    """Running `init` again after a fault gives a host that can back up, be judged, and be recovered."""
    for nth in itertools.count(1):
        assert nth < ENOUGH
        place = tmp_path / str(nth)
        (place / "source").mkdir(parents=True)
        (place / "source" / "file").write_bytes(MARK)
        store = MemoryStore(now)
        faulty = FaultyStore(store, nth, when, only="put")
        location = VaultLocation(scheme="file", path=place / "vault")

        def init(at: object, location: VaultLocation = location, place: Path = place) -> None:
            initialise(
                at,  # type: ignore[arg-type]
                location,
                state=place / "state",
                host_name="rig",
                passphrase=PASSPHRASE,
                domain_policy="vault",
                immutability=Immutability.DISABLED,
                clock=now,
            )

        try:
            init(faulty)
        except StatewardError:
            assert faulty.fired
            init(store)
        pinned, vault = find_pinned(place / "state", location, store)
        assert pinned.signer_key is not None
        assert pinned.signer_key.public_key() == vault.signer
        opened = open_host(store, PASSPHRASE, host=None)
        assert opened.keys.host_id == pinned.host_id
        rig = Rig(store=store, location=location, state=place / "state", source=place / "source", keys=opened.keys)
        rig.backup()
        rig.assert_restores(place / "restored")
        assert check_vault(store, rig.keys, plain=[MARK]).points == (opened_latest(rig),)
        if not faulty.fired:
            return


def opened_latest(rig: Rig) -> str:
    return rig.opened().choose("latest").head.point
