"""The format document is complete: a reader written from it alone restores what the engine wrote."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from common.contracts.jobs import BackupSpec
from common.ids import ulid_text
from common.secret import Secret
from common.vault import names
from common.vault.documents import Chunking, ConfigDocument, Decision, Immutability, StateDocument
from common.vault.hosts import accepted, points_of
from common.vault.location import VaultLocation
from common.vault.points import StoredPoint
from common.vault.signed import write_signed
from common.vault.stores import open_store
from worker.backup import BackupDeps, run_backup
from worker.platform import this_host
from worker.standalone import find_pinned, initialise, plan_backup, receive

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from common.vault.points import Head

READER = Path(__file__).parents[1] / "independent_reader.py"
PASSPHRASE = "an independent horse battery"
FINE = Chunking(min_size=512, average_size=1024, max_size=4096, bundle_limit=2048, segment_size=256 * 1024)
"""So small that one file of a megabyte has more than 256 ranges, and its list goes into range blocks."""


class Rig:
    """A vault in a folder, a host that backs up into it, and what it had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.location = VaultLocation.parse(f"file://{folder}/vault")
        self.state = folder / "state"
        self.store = open_store(self.location, create=True)
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        initialise(
            self.store,
            self.location,
            state=self.state,
            host_name="one",
            passphrase=Secret(PASSPHRASE),
            domain_policy="vault",
            immutability=Immutability.DISABLED,
            clock=self.now,
        )

    def now(self) -> datetime:
        return datetime.now(UTC)

    def back_up(self, chunking: Chunking | None = None, excludes: tuple[str, ...] = ()) -> Head:
        pinned, vault = find_pinned(self.state, self.location, self.store)
        spec = BackupSpec(system_state=False, paths=(str(self.source),), excludes=excludes)
        request, chain = plan_backup(self.store, pinned, vault, spec=spec, state=self.state)
        if chunking is not None:
            request = dataclasses.replace(request, chunking=chunking)
        deps = BackupDeps(
            store=self.store,
            host=this_host(),
            pinned=pinned,
            state=self.state,
            clock=self.now,
            monotonic=time.monotonic,
            random_bytes=secrets.token_bytes,
            progress=lambda _: None,
            cancelled=lambda: None,
            before_commit=lambda: None,
        )
        run_backup(request, deps)
        return receive(self.store, pinned, request, chain, self.now).head

    def read_independently(self, name: str = "restored") -> subprocess.CompletedProcess[str]:
        """In a process of its own, with nothing of ours to import."""
        command = [sys.executable, "-I", str(READER), self.location.url]
        command += [str(self.folder / "passphrase"), str(self.folder / name)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, cwd=self.folder)

    def signer(self) -> Ed25519PrivateKey:
        pinned, _ = find_pinned(self.state, self.location, self.store)
        assert pinned.signer_key is not None
        return pinned.signer_key

    def add_config(self) -> str:
        """A second config, as a change of settings makes one."""
        _, vault = find_pinned(self.state, self.location, self.store)
        key = names.config(2)
        config = ConfigDocument(
            seq=2, prev_sha256=vault.config_sha256, created="", codec=vault.config.codec, signer=vault.config.signer
        )
        self.store.put(key, write_signed("config", config, vault_id=vault.id, object_key=key, signer=self.signer()))
        return key

    def decide(self, head: Head, decision: str, number: int) -> None:
        """Add a decision about a point, in the order of the numbers and before or after all others as they are signed."""
        point = StoredPoint.parse(self.store.get(head.key))
        document = StateDocument(decision=decision, point_sha256=point.sha256, created="", seq=head.seq)
        key = names.state(head.host, head.point, ulid_text((2**127 + number).to_bytes(16, "big")))
        self.store.put(key, write_signed("state", document, vault_id=head.vault, object_key=key, signer=self.signer()))

    def latest(self) -> str:
        """The engine's opinion."""
        pinned, vault = find_pinned(self.state, self.location, self.store)
        public = pinned.signing_key.public_key()
        points = points_of(self.store, vault_id=vault.id, host=pinned.host_id, public=public, signer=vault.signer)
        return accepted(points)[-1].head.point

    @property
    def restored(self) -> Path:
        return self.folder / "restored" / self.source.relative_to("/")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    fill(rig.source)
    return rig


def noise(label: str, size: int) -> bytes:
    return hashlib.shake_128(label.encode()).digest(size)


def fill(source: Path) -> None:
    (source / "many").mkdir(parents=True)
    for number in range(1500):
        (source / "many" / f"file {number:04d}").write_bytes(noise(str(number), number % 700))
    (source / "empty").touch()
    (source / "limit").write_bytes(noise("limit", 256 * 1024))
    (source / "limit+1").write_bytes(noise("limit", 256 * 1024 + 1))
    (source / "text").write_bytes(b"the same line again\n" * 100_000)
    (source / "large").write_bytes(noise("large", 9 * 1024 * 1024 + 7))
    with (source / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(40 * 1024 * 1024)
        file.write(noise("sparse", 300_000))
        file.truncate(64 * 1024 * 1024)
    os.link(source / "limit", source / "limit again")
    (source / "link").symlink_to("many/file 0001")
    (source / "nowhere").symlink_to("/no/such/../place")
    (Path(os.fsdecode(os.fsencode(source) + b"/n\xffme"))).write_bytes(b"not UTF-8")
    (source / "private").mkdir(mode=0o700)
    (source / "private" / "id_rsa").write_bytes(b"a secret by its name")
    (source / "private" / "id_rsa").chmod(0o400)
    os.utime(source / "text", ns=(1, -1_500_000_001))
    os.utime(source / "private", ns=(1, 2**40 + 123_456_789))


def described(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Kind, mode, time and content of everything below."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in (root, *root.rglob("*")):
        stat = path.lstat()
        name = os.fsencode(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        else:
            digest = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = (stat.st_mode, stat.st_mtime_ns, digest)
    return found


def expect_equal(rig: Rig) -> None:
    done = rig.read_independently()
    assert done.returncode == 0, done.stderr
    assert described(rig.restored) == described(rig.source)


def test_it_restores_the_second_backup(rig: Rig) -> None:
    first = rig.back_up()
    with (rig.source / "large").open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"changed")
    (rig.source / "many" / "file 0007").unlink()
    (rig.source / "many" / "new").write_bytes(b"new")
    second = rig.back_up()
    assert (first.seq, second.seq, second.new_bytes < first.new_bytes) == (1, 2, True)
    expect_equal(rig)
    assert (rig.restored / "sparse").stat().st_blocks * 512 < 8 * 1024 * 1024


def test_it_restores_files_whose_ranges_need_blocks_of_their_own(rig: Rig) -> None:
    rig.back_up(FINE)
    rig.back_up(FINE)
    expect_equal(rig)


def test_it_restores_a_point_that_names_its_pages_through_root_pages(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.vault.pages.MAX_RECORDS", 1)
    monkeypatch.setattr("worker.naming.MAX_NAMED", 1)
    rig.back_up()
    (rig.source / "large").write_bytes(noise("other", 1024 * 1024))
    head = rig.back_up()
    assert (head.lists_root, len(head.indexes_root)) == (True, 32)
    expect_equal(rig)


def test_it_restores_a_tree_without_entries(rig: Rig) -> None:
    head = rig.back_up(excludes=("**",))
    assert head.files == 0
    done = rig.read_independently()
    assert done.returncode == 0, done.stderr
    assert list((rig.folder / "restored").iterdir()) == []


DELETED, UNDELETED, PURGED = Decision.DELETED, Decision.UNDELETED, Decision.PURGED
QUARANTINED, RECEIVED, RETENTION = Decision.QUARANTINED, Decision.RECEIVED, Decision.RETENTION


@pytest.mark.parametrize(
    ("decisions", "counts"),
    [
        ([RETENTION, "moved"], True),
        ([UNDELETED], True),
        ([QUARANTINED], False),
        ([QUARANTINED, UNDELETED], False),
        ([QUARANTINED, RECEIVED], True),
        ([DELETED], False),
        ([DELETED, RECEIVED], False),
        ([DELETED, QUARANTINED, RETENTION, "moved", UNDELETED], True),
        ([PURGED, UNDELETED, RECEIVED], False),
        ([DELETED, UNDELETED, PURGED, UNDELETED], False),
    ],
)
def test_it_judges_decisions_as_the_engine_does(tmp_path: Path, decisions: list[str], counts: bool) -> None:
    rig = Rig(tmp_path)
    rig.source.mkdir()
    (rig.source / "file").write_bytes(b"first")
    first = rig.back_up()
    (rig.source / "file").write_bytes(b"second")
    second = rig.back_up()
    for number, decision in enumerate(decisions):
        rig.decide(second, str(decision), number)
    done = rig.read_independently()
    assert done.returncode == 0, done.stderr
    assert (rig.restored / "file").read_bytes() == (b"second" if counts else b"first")
    assert rig.latest() == (second if counts else first).point


def test_it_takes_no_vault_json_but_the_one_of_the_wrapping(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.source.mkdir()
    rig.back_up()
    path = tmp_path / "vault" / "vault.json"
    path.write_bytes(path.read_bytes() + b"\n")
    done = rig.read_independently()
    assert done.returncode != 0
    assert "config/0000000001" in done.stderr


def test_it_notices_a_config_that_is_hidden(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.source.mkdir()
    config = tmp_path / "vault" / rig.add_config()
    assert rig.back_up().config_seq == 2
    assert rig.read_independently().returncode == 0
    config.unlink()
    done = rig.read_independently("again")
    assert done.returncode != 0
    assert "config" in done.stderr


def test_packs_that_close_early_are_padded(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.source.mkdir()
    for number in range(5):
        (rig.source / f"file {number}").write_bytes(noise(f"{number}", 1000 * number + 1))
        rig.back_up()
    packs = [path for path in (tmp_path / "vault" / "packs").rglob("*") if path.is_file()]
    assert len(packs) >= 5
    assert all(path.stat().st_size % 4096 == 0 for path in packs)
    assert rig.read_independently().returncode == 0


@pytest.mark.parametrize("folder", ["packs", "points", "keys", "lists", "index", "config", "hosts", "state"])
def test_it_notices_a_flipped_bit_everywhere(tmp_path: Path, folder: str) -> None:
    rig = Rig(tmp_path)
    rig.source.mkdir()
    (rig.source / "file").write_bytes(noise("file", 5000))
    rig.back_up()
    for path in sorted((tmp_path / "vault" / folder).rglob("*")):
        if not path.is_file():
            continue
        whole = path.read_bytes()
        path.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        assert rig.read_independently(f"restored {path.name}").returncode != 0
        path.write_bytes(whole)
    assert rig.read_independently().returncode == 0


def test_it_imports_nothing_of_ours() -> None:
    lines = READER.read_text(encoding="utf-8").splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    ours = {"common", "worker", "coordinator", "msgspec"}
    assert not imported & ours
    assert len(lines) <= 300
