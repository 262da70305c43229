"""kill -9 at random moments of a backup: what is stored is sound, and the next run uses it."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import check_vault
from vault_rig import Rig
from worker_trees import make_every_kind

import common.vault.packs
from common.vault.documents import Chunking
from common.vault.stores import DirectoryStore
from worker.runlog import JournalStored, _read

ROUNDS = 15
CONTENT = 4_000_000
MIDDLE = Chunking(min_size=4096, average_size=8192, max_size=16384, bundle_limit=4096, segment_size=1 << 20)
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the child has them."""
    monkeypatch.setattr(common.vault.packs, "MIN_CLOSE", 200_000)
    monkeypatch.setattr(common.vault.packs, "MAX_CLOSE", 220_000)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("killed")
    rig = Rig.make(folder, DirectoryStore(folder / "vault", create=True), chunking=MIDDLE)
    make_every_kind(rig.source)
    for number in range(8):
        (rig.source / f"file {number}").write_bytes(secrets.token_bytes(CONTENT // 8))
    return rig


class Forker:
    """Starts backups in processes that may be killed."""

    def __init__(self, rig: Rig) -> None:
        places = [str(each) for each in (rig.vault_folder, rig.state, rig.source)]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "killed_child.py"), *places],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parents[1],
            env={"PYTHONPATH": str(HERE.parents[1]), "PATH": "/usr/bin:/bin"},
        )

    def run(self, kill_after_s: float | None) -> tuple[int, float]:
        """(exit code, seconds) of a backup that is killed after so long, or never."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        begun = time.monotonic()
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return int(self._process.stdout.readline()), time.monotonic() - begun

    def close(self) -> None:
        self._process.communicate()


def restart(rig: Rig, template: Path) -> None:
    """The vault and the state as they were before any backup."""
    for folder in ("vault", "state"):
        shutil.rmtree(rig.state.parent / folder)
        shutil.copytree(template / folder, rig.state.parent / folder)


def test_kill_at_random_moments(rig: Rig, tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    template = tmp_path / "template"
    for folder in ("vault", "state"):
        shutil.copytree(rig.state.parent / folder, template / folder)
    forker = Forker(rig)
    try:
        code, whole_s = forker.run(None)
        assert code == 0
        full = check_vault(rig.store, rig.keys)
        assert full.packs > 10
        killed = reused = 0
        for turn in range(ROUNDS):
            restart(rig, template)
            rig.store._folders.clear()  # type: ignore[attr-defined]
            code, _ = forker.run(chance.uniform(0, whole_s))
            assert code in {0, -signal.SIGKILL}
            killed += code != 0
            before = check_vault(rig.store, rig.keys)
            records, _good = _read(rig.folder / "journal")
            journalled = sum(isinstance(each, JournalStored) for each in records)
            rig.backup()
            after = check_vault(rig.store, rig.keys)
            assert len(after.points) == len(before.points) + 1
            if journalled:
                reused += 1
                assert after.packs - before.packs <= full.packs + 3 - journalled, "stored packs were sent again"
            restored = tmp_path / f"restored-{turn}"
            rig.assert_restores(restored)
            shutil.rmtree(restored)
            assert rig.opened().problems == []
        assert killed >= ROUNDS // 3
        assert reused
    finally:
        forker.close()
