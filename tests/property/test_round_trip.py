"""What was backed up is what is restored: for generated trees, edits, and every loss of what is only a cache."""

from __future__ import annotations

import random
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check_vault
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import BOUNDARIES, Node, make_tree, trees
from vault_rig import SMALL, Rig, described
from worker_trees import make_every_kind

import common.vault.packs
import worker.upload
from common.vault.documents import Chunking
from worker.content import BUFFER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True, scope="module")
def _small_packs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.vault.packs, "MIN_CLOSE", 20_000)
        patch.setattr(common.vault.packs, "MAX_CLOSE", 40_000)
        patch.setattr(worker.upload, "BRACKET_PACKS", 2)
        yield


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig.make(tmp_path_factory.mktemp("empty"))


@contextmanager
def fresh(empty: Rig, tree: dict[tuple[bytes, ...], Node]) -> Iterator[tuple[Rig, Path]]:
    """A rig of its own with this source, gone afterwards."""
    folder = Path(tempfile.mkdtemp())
    try:
        source = folder / "source"
        source.mkdir()
        make_tree(source, tree)
        yield empty.copy(folder, source=source), folder
    finally:
        shutil.rmtree(folder)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees, edited=trees, drop=st.integers(0, 3))
def test_trees_come_back_and_so_do_edits_of_them(
    empty: Rig, tree: dict[tuple[bytes, ...], Node], edited: dict[tuple[bytes, ...], Node], drop: int
) -> None:
    """Each of two points gives back the source of its time; the second is made by way of the caches."""
    with fresh(empty, tree) as (rig, folder):
        report, first = rig.backup()
        assert report.warnings == ()
        rig.assert_restores(folder / "one")
        for path in sorted(rig.source.iterdir())[:drop]:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        make_tree(rig.source, edited)
        rig.backup()
        rig.assert_restores(folder / "two")
        rig.restore(folder / "one again", point=first.head.point)
        assert described(folder / "one again") == described(folder / "one")
        check_vault(rig.store, rig.keys)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :] if at < len(data) else data


def edit(source: Path) -> None:
    (source / "folder/inner/file").write_bytes(b"other content")
    (source / "grown").write_bytes((source / "grown").read_bytes() + b"more")
    (source / "new").write_bytes(random.Random(9).randbytes(5000))
    (source / "empty").unlink()


@pytest.fixture(scope="module")
def backed_up(empty: Rig, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """Two points (the second has read what the first wrote), then an edit of the source."""
    folder = tmp_path_factory.mktemp("backed up")
    source = folder / "source"
    source.mkdir()
    rig = empty.copy(folder, source=source)
    make_every_kind(source)
    (source / "grown").write_bytes(random.Random(1).randbytes(30_000))
    (source / "many ranges").write_bytes(random.Random(2).randbytes(300_000))
    rig.backup()
    rig.backup()
    edit(source)
    return rig


LOCAL = ["files.cache", "blocks", "objects"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    which=st.sampled_from(LOCAL),
    how=st.sampled_from(["lost", "torn", "flipped", "emptied", "replaced"]),
    at=st.floats(0, 0.999),
)
def test_damage_of_a_cache_costs_time_and_nothing_else(backed_up: Rig, which: str, how: str, at: float) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        rig = backed_up.copy(folder)
        victims = [
            path for path in rig.folder.rglob("*") if path.is_file() and which in str(path.relative_to(rig.folder))
        ]
        assert victims
        for path in victims:
            size = path.stat().st_size
            if how == "lost":
                path.unlink()
            else:
                rewrite(
                    path,
                    {
                        "torn": lambda data, size=size: data[: int(size * at)],
                        "flipped": lambda data, size=size: flipped(data, int(size * at)),
                        "emptied": lambda _data: b"",
                        "replaced": lambda data: random.Random(5).randbytes(len(data)),
                    }[how],
                )
        rig.backup()
        rig.assert_restores(folder / "restored")
        assert len(check_vault(rig.store, rig.keys).points) == 3
        rig.backup()
        rig.assert_restores(folder / "restored again")
    finally:
        shutil.rmtree(folder)


@settings(max_examples=15, deadline=None)
@given(at=st.floats(0, 1), flip=st.booleans())
def test_a_torn_or_damaged_journal_costs_time_and_nothing_else(backed_up: Rig, at: float, *, flip: bool) -> None:
    """A run that ended before its point leaves a journal; it is damaged anywhere before the next run reads it."""
    folder = Path(tempfile.mkdtemp())
    try:
        rig = backed_up.copy(folder)
        request, _chain = rig.plan()

        class Stop(Exception):
            pass

        def stop() -> None:
            raise Stop

        with pytest.raises(Stop):
            rig.run(request, before_commit=stop)
        journal = rig.folder / "journal"
        size = journal.stat().st_size
        assert size > 1000
        rewrite(journal, lambda data: flipped(data, int(size * at)) if flip else data[: int(size * at)])
        rig.backup()
        rig.assert_restores(folder / "restored")
        assert len(check_vault(rig.store, rig.keys).points) == 3
        assert not journal.exists()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("policy", ["vault", "host"])
def test_sizes_around_every_boundary(tmp_path: Path, policy: str) -> None:
    """Every size once alone in its folder, once among the others, in both domain policies."""
    rig = Rig.make(tmp_path, domain_policy=policy)
    chance = random.Random(3)
    for size in BOUNDARIES:
        (rig.source / f"{size:06} random").write_bytes(chance.randbytes(size))
        (rig.source / f"{size:06} zeros").write_bytes(bytes(size))
        sparse = rig.source / f"{size:06} sparse"
        with sparse.open("wb") as file:
            file.truncate(size)
    rig.backup()
    rig.assert_restores(tmp_path / "restored")
    report, _ = rig.backup(reread=True)
    assert (report.new_bytes, report.stored_bytes) == (0, 0)
    check_vault(rig.store, rig.keys)


def test_sizes_around_the_boundaries_of_a_real_vault(tmp_path: Path) -> None:
    """The chunking that vaults have, but for the segments, and the buffers that files are read into."""
    real = Chunking(segment_size=BUFFER_SIZE + 1)
    rig = Rig.make(tmp_path, chunking=real)
    whole = random.Random(4).randbytes(1 << 20) * 9
    for limit in (real.bundle_limit, real.min_size, real.max_size, BUFFER_SIZE, BUFFER_SIZE + 1):
        for step in (-1, 0, 1):
            (rig.source / f"{limit + step}").write_bytes(whole[: limit + step])
    for number in range(40):
        (rig.source / f"bundled {number:02}").write_bytes(whole[number : number + real.bundle_limit])
    rig.backup()
    rig.assert_restores(tmp_path / "restored")
    assert SMALL.segment_size < real.segment_size
