"""Specific damage and specific attacks: each is named, and harms nothing else."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from faults import FaultyStore, When, check_vault
from vault_rig import PASSPHRASE, Rig, described, nothing, now
from worker_trees import make_every_kind

import common.vault.packs
from common.errors import AlreadyExists, Damaged, FormatTooNew, NotTrusted, StatewardError, WrongPassphrase
from common.ids import new_ulid, new_uuid
from common.secret import Secret
from common.vault import names
from common.vault.documents import ConfigDocument, Decision, HostDocument
from common.vault.hosts import write_host_record, write_state
from common.vault.keys import Wrapping, new_host_keys, wrap
from common.vault.points import StoredPoint, write_point
from common.vault.signed import write_signed
from common.vault.stores import DirectoryStore, MemoryStore
from common.vault.tree import read_root, read_tree_block
from common.vault.vaults import open_vault
from worker.fetch import Fetcher
from worker.recovery import open_host
from worker.reporting import shown
from worker.restore import read_entries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from common.vault.store import Store


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common.vault.packs, "MIN_CLOSE", 30_000)
    monkeypatch.setattr(common.vault.packs, "MAX_CLOSE", 50_000)


def fill(source: Path) -> None:
    make_every_kind(source)
    for number in range(12):
        (source / f"file {number:02}").write_bytes(secrets.token_bytes(9_000 + number))
    (source / "larger").write_bytes(secrets.token_bytes(120_000))
    (source / "many ranges").write_bytes(secrets.token_bytes(400_000))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """Two points in a vault with versions; the source is that of the second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.vault.packs, "MIN_CLOSE", 30_000)
        patch.setattr(common.vault.packs, "MAX_CLOSE", 50_000)
        rig = Rig.make(tmp_path_factory.mktemp("made"))
        fill(rig.source)
        rig.backup()
        (rig.source / "second").write_bytes(secrets.token_bytes(5_000))
        rig.backup()
    return rig


@pytest.fixture
def rig(made: Rig, tmp_path: Path) -> Rig:
    return made.copy(tmp_path)


@pytest.fixture(scope="module")
def made_on_disk(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """One point in a vault without versions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.vault.packs, "MIN_CLOSE", 30_000)
        patch.setattr(common.vault.packs, "MAX_CLOSE", 50_000)
        folder = tmp_path_factory.mktemp("made on disk")
        rig = Rig.make(folder, DirectoryStore(folder / "vault", create=True))
        fill(rig.source)
        rig.backup()
    return rig


@pytest.fixture
def on_disk(made_on_disk: Rig, tmp_path: Path) -> tuple[Rig, Path]:
    rig = made_on_disk.copy(tmp_path)
    return rig, rig.vault_folder


def memory(rig: Rig) -> MemoryStore:
    assert isinstance(rig.store, MemoryStore)
    return rig.store


def newest(rig: Rig) -> StoredPoint:
    return rig.opened().choose("latest")


def files_by_pack(rig: Rig) -> dict[str, set[str]]:
    """Key of each pack that holds content → the files that need it."""
    found: dict[str, set[str]] = {}
    opened = rig.opened()
    root = read_root(opened.root_of(opened.choose("latest")))
    with Fetcher(rig.store, vault_id=opened.vault.id, parallel=2, cancelled=nothing) as fetcher:
        for entry, pieces in read_entries(root, fetcher, (), pytest.fail):
            for piece in pieces:
                if piece.place is not None:
                    key = names.pack(piece.place.host, piece.place.pack)
                    found.setdefault(key, set()).add(shown(entry.path))
    return found


def tree_packs(rig: Rig) -> set[str]:
    opened = rig.opened()
    return {
        names.pack(row.place.host, row.place.pack) for row in read_root(opened.root_of(opened.choose("latest"))).blocks
    }


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:] = bytes(byte ^ 0x55 for byte in data[100:])
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [corrupt, truncate, delete])
def test_a_damaged_pack_fails_its_files_and_nothing_else(
    on_disk: tuple[Rig, Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    rig, folder = on_disk
    packs = files_by_pack(rig)
    content_only = sorted(set(packs) - tree_packs(rig))
    assert len(content_only) > 3
    key = content_only[len(content_only) // 2]
    damage(folder / key)
    report = rig.restore(tmp_path / "restored")
    assert {each.path for each in report.failed} == packs[key]
    assert all(key in each.reason or "link" in each.reason for each in report.failed)
    lost = {os.fsencode(path) for path in packs_paths(packs[key], rig.source)}
    wanted, got = described(rig.source), described(tmp_path / "restored")
    assert got == {path: what for path, what in wanted.items() if path not in lost}


def packs_paths(names_shown: set[str], source: Path) -> set[str]:
    """Paths below the source by the names that a report shows."""
    every = {os.fsdecode(path) for path in described(source)}
    found = {path for path in every if shown(os.fsencode(path)) in names_shown}
    assert len(found) == len(names_shown)
    return found


def test_damaged_blocks_of_the_tree_lose_only_what_they_list(on_disk: tuple[Rig, Path], tmp_path: Path) -> None:
    """Every block of the tree in turn: the rest is restored, and the report says from which path to which."""
    rig, folder = on_disk
    opened = rig.opened()
    rows = read_root(opened.root_of(opened.choose("latest"))).blocks
    row = rows[0]
    path = folder / names.pack(row.place.host, row.place.pack)
    data = bytearray(path.read_bytes())
    data[row.offset] ^= 1
    path.write_bytes(data)
    report = rig.restore(tmp_path / "restored")
    assert [each.path for each in report.failed] == [shown(row.first_path)]
    assert "the list of files" in report.failed[0].reason


def test_a_damaged_list_of_ranges_fails_one_file(on_disk: tuple[Rig, Path], tmp_path: Path) -> None:
    rig, folder = on_disk
    opened = rig.opened()
    root = read_root(opened.root_of(opened.choose("latest")))
    with Fetcher(rig.store, vault_id=opened.vault.id, parallel=2, cancelled=nothing) as fetcher:
        blocks = [read_tree_block(fetcher.one(row.place)) for row in root.blocks]
    ((place, *_),) = [block.range_places(entry) for block in blocks for entry in block.entries() if entry.range_blocks]
    path = folder / names.pack(place.host, place.pack)
    data = bytearray(path.read_bytes())
    data[place.offset] ^= 1
    path.write_bytes(data)
    report = rig.restore(tmp_path / "restored")
    assert [each.path for each in report.failed] == ["many ranges"]
    assert report.files == len([path for path in rig.source.rglob("*") if not path.is_dir() or path.is_symlink()]) - 1


def garbage(store: MemoryStore, key: str) -> None:
    store.overwrite(key, secrets.token_bytes(store.head(key).size))


def marker(store: MemoryStore, key: str) -> None:
    store.overwrite(key, None)


@pytest.mark.parametrize("attack", [garbage, marker])
def test_packs_that_were_overwritten_or_hidden_restore_from_older_versions(
    rig: Rig, tmp_path: Path, attack: Callable[[MemoryStore, str], None]
) -> None:
    for info in list(rig.store.list("packs/")):
        attack(memory(rig), info.key)
    rig.assert_restores(tmp_path / "restored")
    (rig.source / "third").write_bytes(b"third")
    try:
        rig.backup()
        rig.assert_restores(tmp_path / "restored again")
    finally:
        (rig.source / "third").unlink()


@pytest.mark.parametrize("attack", [garbage, marker])
def test_a_vault_of_which_every_object_was_attacked_is_recovered(
    rig: Rig, tmp_path: Path, attack: Callable[[MemoryStore, str], None]
) -> None:
    """All that a thief without the right to delete versions can do at once. The passphrase alone opens the vault, and
    the next backup works."""
    for info in list(rig.store.list("")):
        attack(memory(rig), info.key)
    opened = open_host(rig.store, PASSPHRASE, host=None)
    assert opened.keys == rig.keys
    assert len(opened.points) == 2
    assert opened.problems == []
    rig.assert_restores(tmp_path / "restored")
    rig.backup()
    assert [point.head.seq for point in rig.plan()[1].points] == [1, 2, 3]


def test_a_wrapping_replaced_by_one_of_a_later_version_does_not_lock_out(rig: Rig) -> None:
    ((key),) = [info.key for info in rig.store.list("keys/")]
    wrapping = msgspec.msgpack.decode(rig.store.get(key), type=Wrapping)
    memory(rig).overwrite(key, msgspec.msgpack.encode(msgspec.structs.replace(wrapping, v=2)))
    assert open_host(rig.store, PASSPHRASE, host=None).keys == rig.keys


@pytest.mark.parametrize("part", ["length", "head", "signature", "root"])
def test_a_corrupted_point_is_named_and_the_one_before_stays(
    on_disk: tuple[Rig, Path], tmp_path: Path, part: str
) -> None:
    rig, folder = on_disk
    good = newest(rig)
    rig.backup()
    bad = newest(rig)
    path = folder / bad.key
    at = {"length": 0, "head": 40, "signature": 4 + len(bad.head_bytes), "root": -1}[part]
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    opened = rig.opened()
    assert any(bad.key in problem for problem in opened.problems)
    assert opened.choose("latest") == good
    with pytest.raises(Damaged, match=bad.key):
        opened.choose(bad.head.point)
    rig.assert_restores(tmp_path / "restored")


def test_swapped_points_do_not_count(on_disk: tuple[Rig, Path]) -> None:
    rig, folder = on_disk
    first = newest(rig)
    rig.backup()
    second = newest(rig)
    one, two = (folder / first.key).read_bytes(), (folder / second.key).read_bytes()
    (folder / first.key).write_bytes(two)
    (folder / second.key).write_bytes(one)
    opened = rig.opened()
    assert [each.problem for each in opened.points] == [
        f"The recovery point at {point.key} says that it belongs elsewhere." for point in (second, first)
    ]


def test_a_replayed_old_point_does_not_become_the_newest(rig: Rig) -> None:
    old = rig.opened().points[0].point
    last = newest(rig)
    assert old is not None
    replayed = names.point(rig.keys.host_id, new_ulid())
    rig.store.put(replayed, rig.store.get(old.key))
    memory(rig).overwrite(last.key, rig.store.get(old.key))
    opened = rig.opened()
    assert opened.choose("latest") == last
    assert any(replayed in problem for problem in opened.problems)


def test_a_second_signed_version_of_a_point_does_not_count(rig: Rig) -> None:
    """A thief of the host's key writes another point under the same key: the oldest validly signed one stays."""
    last = newest(rig)
    head = msgspec.structs.replace(last.head, files=0, logical_bytes=0)
    forged = write_point(head, b"", recovery_public=rig.keys.recovery_public, signer=rig.keys.signing_key)
    memory(rig).overwrite(last.key, forged)
    assert newest(rig) == last


def take_away(rig: Rig, key: str) -> None:
    """What a store can do that shows neither an object nor its versions."""
    for version in memory(rig).versions(key):
        memory(rig).delete(key, version=version.version)


def test_a_hidden_newest_point_is_reported(rig: Rig) -> None:
    last = newest(rig)
    take_away(rig, last.key)
    opened = rig.opened()
    assert opened.choose("latest").head.seq == last.head.seq - 1
    assert [problem for problem in opened.problems if last.key in problem]


def test_a_point_after_a_hidden_one_does_not_take_its_number(rig: Rig) -> None:
    last = newest(rig)
    take_away(rig, last.key)
    request, chain = rig.plan()
    assert request.seq == last.head.seq + 1
    assert any(last.key in problem for problem in chain.problems)


def test_a_hidden_point_in_the_middle_is_a_gap(rig: Rig) -> None:
    rig.backup()
    middle = rig.opened().points[1].point
    assert middle is not None
    take_away(rig, middle.key)
    assert "Between seq 1 and 3 points are missing." in rig.opened().problems


def test_a_deleted_point_is_no_gap_and_its_number_is_not_given_again(rig: Rig) -> None:
    last = newest(rig)
    signer = rig.pinned.signer_key
    assert signer is not None
    write_state(rig.store, vault_id=rig.keys.vault_id, point=last, decision=Decision.DELETED, signer=signer, clock=now)
    rig.backup()
    opened = rig.opened()
    assert [each.seq for each in opened.points] == [1, 2, 3]
    assert opened.problems == [f"{last.key}: It is deleted."]


def planted_record(rig: Rig, key: str) -> tuple[str, bytes]:
    """A record of the host signed by somebody else, under a chosen key."""
    thief = Ed25519PrivateKey.generate()
    document = HostDocument(
        host=rig.keys.host_id,
        name="planted",
        signing_public=thief.public_key().public_bytes_raw(),
        recovery_public=secrets.token_bytes(1216),
        key_id="0" * 16,
        created=now().isoformat(),
    )
    return key, write_signed("host", document, vault_id=rig.keys.vault_id, object_key=key, signer=thief)


def test_a_planted_host_record_after_the_real_one_is_passed_over(rig: Rig) -> None:
    rig.store.put(*planted_record(rig, names.host_record(rig.keys.host_id, new_ulid())))
    assert open_host(rig.store, PASSPHRASE, host="rig").keys == rig.keys


def test_a_planted_host_record_before_the_real_one_changes_no_key(rig: Rig, tmp_path: Path) -> None:
    rig.store.put(*planted_record(rig, names.host_record(rig.keys.host_id, "0" * 26)))
    opened = open_host(rig.store, PASSPHRASE, host=None)
    assert opened.keys == rig.keys
    assert len([each for each in opened.points if not each.problem]) == 2
    before = rig.pinned
    rig.backup()
    assert rig.pinned == before
    assert newest(rig).head.key_id == rig.keys.key_id
    rig.assert_restores(tmp_path / "restored")


def test_a_host_record_of_a_later_version_by_somebody_else_blocks_nothing(rig: Rig) -> None:
    thief = Ed25519PrivateKey.generate()
    document = msgspec.structs.replace(
        HostDocument(host=rig.keys.host_id, name="x", signing_public=b"", recovery_public=b"", key_id="00", created=""),
        v=2,
    )
    key, raw = write_host_record(document, vault_id=rig.keys.vault_id, signer=thief)
    rig.store.put(key, raw)
    assert open_host(rig.store, PASSPHRASE, host="rig").keys == rig.keys


def test_a_planted_wrapping_gives_no_other_key(rig: Rig) -> None:
    """The thief wraps his own keys under a passphrase of his own: the real passphrase gives the real keys, and his
    passphrase keys whose points do not exist."""
    his = new_host_keys(
        vault_id=rig.keys.vault_id, host_id=rig.keys.host_id, vault_sha256=rig.keys.vault_sha256, domains={}
    )
    thief = Secret("the thief's passphrase")
    rig.store.put(names.wrapping(rig.keys.host_id, his.key_id, new_ulid()), wrap(his, thief))
    assert open_host(rig.store, PASSPHRASE, host=None).keys == rig.keys
    opened = open_host(rig.store, thief, host=None)
    assert all(each.problem for each in opened.points)


def test_a_wrapping_moved_to_another_host_does_not_open(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = new_uuid()
    ((key),) = [info.key for info in rig.store.list("keys/")]
    rig.store.put(names.wrapping(other, rig.keys.key_id, new_ulid()), rig.store.get(key))
    with pytest.raises(WrongPassphrase):
        open_host(rig.store, PASSPHRASE, host=other)


def test_a_wrapping_with_greedy_parameters_is_not_tried(rig: Rig) -> None:
    ((key),) = [info.key for info in rig.store.list("keys/")]
    wrapping = msgspec.msgpack.decode(rig.store.get(key), type=Wrapping)
    assert wrapping.argon2 is not None
    greedy = msgspec.structs.replace(wrapping.argon2, memory_kib=64 * 1024 * 1024)
    planted = names.wrapping(rig.keys.host_id, wrapping.key_id, new_ulid())
    rig.store.put(planted, msgspec.msgpack.encode(msgspec.structs.replace(wrapping, argon2=greedy)))
    assert open_host(rig.store, PASSPHRASE, host=None).keys == rig.keys


def config(rig: Rig, seq: int, *, signer: Ed25519PrivateKey, codec: str = "zstd-9.9.9-l1") -> tuple[str, bytes]:
    before = hashlib.sha256(rig.store.get(names.config(seq - 1))).digest()
    document = ConfigDocument(
        seq=seq, prev_sha256=before, created="", codec=codec, signer=signer.public_key().public_bytes_raw()
    )
    key = names.config(seq)
    return key, write_signed("config", document, vault_id=rig.keys.vault_id, object_key=key, signer=signer)


def objects(store: Store) -> set[str]:
    return {info.key for info in store.list("")}


def test_a_planted_config_stops_a_backup_before_it_writes(rig: Rig) -> None:
    rig.store.put(*config(rig, 2, signer=Ed25519PrivateKey.generate()))
    before = objects(rig.store)
    with pytest.raises(NotTrusted):
        rig.backup()
    assert objects(rig.store) == before


def test_a_planted_config_does_not_stop_a_recovery(rig: Rig, tmp_path: Path) -> None:
    """One object that anybody with PUT rights can add must not be a lock on every passphrase."""
    key, raw = config(rig, 2, signer=Ed25519PrivateKey.generate())
    rig.store.put(key, raw)
    opened = open_host(rig.store, PASSPHRASE, host=None)
    assert opened.choose("latest").head.seq == 2
    assert any(key in problem for problem in opened.problems)


def test_an_older_config_is_refused_once_a_newer_was_seen(rig: Rig) -> None:
    signer = rig.pinned.signer_key
    assert signer is not None
    vault = open_vault(rig.store)
    key, raw = config(rig, 2, signer=signer, codec=vault.config.codec)
    rig.store.put(key, raw)
    rig.backup()
    assert rig.pinned.pin.config_seq == 2
    memory(rig).delete(key, version=memory(rig).versions(key)[0].version)
    with pytest.raises(NotTrusted, match="has seen 2"):
        rig.backup()


def test_another_vault_in_the_place_of_the_pinned_one_is_refused(
    rig: Rig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Rig.make(tmp_path_factory.mktemp("other"))
    with pytest.raises(NotTrusted):
        rig.backup(other.store)


def test_a_state_by_somebody_else_deletes_nothing(rig: Rig) -> None:
    last = newest(rig)
    write_state(
        rig.store,
        vault_id=rig.keys.vault_id,
        point=last,
        decision=Decision.DELETED,
        signer=Ed25519PrivateKey.generate(),
        clock=now,
    )
    assert newest(rig) == last


@pytest.mark.parametrize("wrong", ["Correct horse battery", "correct horse batterz", "correct horse battery "])
def test_a_passphrase_wrong_by_one_character_is_refused(rig: Rig, wrong: str) -> None:
    with pytest.raises(WrongPassphrase) as caught:
        open_host(rig.store, Secret(wrong), host=None)
    assert caught.value.exit_code == 7
    assert wrong not in str(caught.value)


def test_a_vault_of_a_later_version_is_refused(rig: Rig) -> None:
    document = msgspec.json.decode(rig.store.get(names.VAULT))
    store = MemoryStore(now)
    store.put(names.VAULT, msgspec.json.encode({**document, "v": 2}))
    with pytest.raises(FormatTooNew):
        open_vault(store)


def test_a_config_of_a_later_version_is_refused(rig: Rig) -> None:
    signer = rig.pinned.signer_key
    assert signer is not None
    key = names.config(2)
    document = ConfigDocument(v=2, seq=2, created="", codec="", signer=b"")
    rig.store.put(key, write_signed("config", document, vault_id=rig.keys.vault_id, object_key=key, signer=signer))
    with pytest.raises(FormatTooNew):
        rig.backup()


@pytest.mark.parametrize("when", When)
def test_a_lost_answer_to_the_puts_of_the_point(rig: Rig, tmp_path: Path, when: When) -> None:
    """The last PUT but one is the point's, the last its `received`; each answer may be lost."""
    for lost in (0, 1):
        place = tmp_path / f"lost {lost}"
        place.mkdir()
        copy = rig.copy(place)
        (place / "dry").mkdir()
        dry = rig.copy(place / "dry")
        counted = FaultyStore(dry.store, 0, only="put")
        dry.backup(counted)
        faulty = FaultyStore(copy.store, counted.calls - lost, when, only="put")
        with pytest.raises(StatewardError):
            copy.backup(faulty)
        assert faulty.fired == 1
        check_vault(copy.store, copy.keys)
        copy.backup()
        assert copy.opened().problems == []
        copy.assert_restores(place / "restored")


def test_what_somebody_put_under_the_point_s_key_does_not_stop_the_next_run(rig: Rig, tmp_path: Path) -> None:
    """Lease objects name the point before it is written: a thief may be faster."""

    class Thief(FaultyStore):
        def put(self, key: str, data: object, *, sha256: bytes | None = None) -> None:
            if key.startswith("points/"):
                self.inner.put(key, b"planted")
            self.inner.put(key, data, sha256=sha256)  # type: ignore[arg-type]

    with pytest.raises((Damaged, AlreadyExists)):
        rig.backup(Thief(rig.store, 0))
    rig.backup()
    assert newest(rig).head.seq == 3
    rig.assert_restores(tmp_path / "restored")


def test_a_copied_vault_works_elsewhere(rig: Rig, tmp_path: Path) -> None:
    """Keys that enter signatures are relative, so a vault may be copied object by object."""
    copied = DirectoryStore(tmp_path / "elsewhere", create=True)
    for info in rig.store.list(""):
        copied.put(info.key, rig.store.get(info.key))
    there = replace(rig, store=copied)
    there.assert_restores(tmp_path / "restored")
    there.backup()
    there.assert_restores(tmp_path / "restored again")
