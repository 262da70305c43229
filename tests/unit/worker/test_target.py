# ruff: noqa: PTH116, PTH208, PTH211
from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from worker_trees import HOST, IS_ROOT, make_every_kind, scanned, with_digest

from common.errors import NoSpace, TargetNotEmpty, TargetNotWritable
from common.vault.entry import Entry, Kind
from worker.compare import Comparison
from worker.platform.linux.host import LinuxHost
from worker.platform.linux.target import LinuxTargetTree
from worker.reading import open_source, pieces
from worker.target import Conflict, Target, TargetReport

if TYPE_CHECKING:
    from worker.platform.api import NewFile


def a_file(path: bytes, content: bytes = b"new", **fields: object) -> tuple[Entry, bytes]:
    given: dict[str, object] = {"mode": 0o644, "uid": os.geteuid(), "gid": os.getegid(), "mtime": (1_000_000, 5)}
    return Entry(path=path, kind=Kind.FILE, size=len(content), **(given | fields)), content  # type: ignore[arg-type]


def a_node(path: bytes, kind: Kind, **fields: object) -> Entry:
    entry, _ = a_file(path, b"", **fields)
    return msgspec.structs.replace(entry, kind=int(kind))


def put(target: Target, entry: Entry, content: bytes) -> bool:
    writer = target.file(entry)
    if writer is None:
        return False
    writer.write_at(0, content)
    return writer.commit()


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def restore(source: Path, root: Path, conflict: Conflict = Conflict.REFUSE) -> tuple[TargetReport, list[Entry]]:
    """A restore as the worker does it, straight from a source."""
    entries = []
    firsts: dict[tuple[int, int], bytes] = {}
    with Target(HOST, root, conflict=conflict) as target:
        target.preflight(0)
        for file in scanned(source)[0]:
            entry = file.entry
            if entry.kind == Kind.DIRECTORY:
                target.directory(entry)
            elif entry.kind != Kind.FILE:
                target.node(entry)
            else:
                entry = with_digest(file)
                first = firsts.setdefault((entry.device, entry.inode), entry.path)
                linked = first != entry.path and target.hard_link(entry, first)
                writer = None if linked else target.file(entry)
                if writer is not None:
                    with open_source(HOST.files, file) as handle:
                        for offset, _, data in pieces(handle):
                            if data is not None:
                                writer.write_at(offset, data)
                    writer.commit()
            entries.append(entry)
        return target.finish(), entries


def test_every_kind_comes_back_the_same(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "new/target"
    source.mkdir()
    make_every_kind(source)
    (source / "folder").chmod(0o555)
    os.utime(source / "folder", ns=(-1_000_000_007, -1_000_000_007))
    report, entries = restore(source, root)
    (source / "folder").chmod(0o755)
    assert report.failed == []
    assert report.notes == {}
    assert report.files + report.directories == len(entries)
    comparison = Comparison(HOST.files, root, permitted_owner=IS_ROOT)
    assert {entry.path: found for entry in entries if (found := comparison.differences(entry))} == {}
    assert (root / "sparse").stat().st_blocks * 512 < 1 << 20
    assert (root / "first name").stat().st_ino == (root / "folder/second name").stat().st_ino
    (root / "folder").chmod(0o755)


def test_differences_are_named(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    make_every_kind(source)
    _, entries = restore(source, root)
    (root / "empty").unlink()
    (root / "fifo").unlink()
    (root / "fifo").mkdir()
    (root / "first name").write_bytes(b"ONE file, two names")
    (root / "odd mode").chmod(0o600)
    os.removexattr(root / "attributes", "user.comment")
    (root / "dangling").unlink()
    os.symlink("elsewhere", root / "dangling")
    second = root / "folder/second name"
    content = second.read_bytes()
    second.unlink()
    second.write_bytes(content)
    comparison = Comparison(HOST.files, root, permitted_owner=IS_ROOT)
    found = {entry.path: differing for entry in entries if (differing := comparison.differences(entry))}
    assert found[b"empty"] == ["missing"]
    assert found[b"fifo"] == ["kind: fifo became directory"]
    assert "content" in found[b"first name"]
    assert any(text.startswith("mode: ") for text in found[b"odd mode"])
    assert "extended attribute user.comment" in found[b"attributes"]
    assert any(text.startswith("link target") for text in found[b"dangling"])
    assert "hard link: no longer the same file as b'first name'" in found[b"folder/second name"]
    assert b"sparse" not in found


@pytest.mark.parametrize(
    "path", [b"", b"/etc/passwd", b"../out", b"a/../../out", b"a//b", b"./a", b"a/.", b"a\0b", b"a/", b".."]
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, path: bytes) -> None:
    root = tmp_path / "root"
    with Target(HOST, root, conflict=Conflict.OVERWRITE) as target:
        entry, content = a_file(path)
        assert not put(target, entry, content)
        assert not target.directory(msgspec.structs.replace(entry, kind=Kind.DIRECTORY))
        assert not target.node(msgspec.structs.replace(entry, kind=Kind.SYMLINK, target=b"x"))
        assert not target.hard_link(entry, b"first")
        report = target.finish()
    assert [failed for failed, _ in report.failed] == [path] * 3
    assert all(reason.startswith("refused: ") for _, reason in report.failed)
    assert names(root) == []
    assert names(tmp_path) == ["root"]


@pytest.mark.parametrize("conflict", [Conflict.COPY, Conflict.OVERWRITE, Conflict.SKIP])
def test_links_in_the_way_are_not_followed(tmp_path: Path, conflict: Conflict) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "file").write_text("untouched")
    os.symlink(outside, root / "planted")
    os.symlink(outside / "file", root / "name")
    with Target(HOST, root, conflict=conflict) as target:
        assert not put(target, *a_file(b"planted/file"))
        assert not put(target, *a_file(b"planted/deep/new"))
        assert not target.node(a_node(b"planted/link", Kind.SYMLINK, target=b"x"))
        put(target, *a_file(b"name"))
        # A link that the tree itself brings is no way out either.
        assert target.node(a_node(b"own", Kind.SYMLINK, target=os.fsencode(outside)))
        assert not put(target, *a_file(b"own/file"))
        report = target.finish()
    assert names(outside) == ["file"]
    assert (outside / "file").read_text() == "untouched"
    reasons = {reason for _, reason in report.failed}
    assert reasons == {"a file or a link is in the way of its folder"}


def test_a_link_planted_while_files_are_written(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    with Target(HOST, root, conflict=Conflict.REFUSE) as target:
        target.directory(a_node(b"folder", Kind.DIRECTORY, mode=0o777))
        assert put(target, *a_file(b"folder/one"))
        assert put(target, *a_file(b"elsewhere"))
        (root / "folder").rename(root / "moved")
        os.symlink(outside, root / "folder")
        assert not put(target, *a_file(b"folder/two"))
        report = target.finish()
    assert names(outside) == []
    assert [path for path, _ in report.failed] == [b"folder/two", b"folder"]
    assert outside.stat().st_mode & 0o777 != 0o777


def test_a_folder_takes_the_place_of_a_link_only_when_told_to_overwrite(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for conflict, works in ((Conflict.OVERWRITE, True), (Conflict.SKIP, False), (Conflict.COPY, False)):
        root = tmp_path / conflict
        root.mkdir()
        os.symlink(outside, root / "folder")
        with Target(HOST, root, conflict=conflict) as target:
            assert target.directory(a_node(b"folder", Kind.DIRECTORY, mode=0o750)) is works
            assert put(target, *a_file(b"folder/file")) is works
            target.finish()
        assert (root / "folder").is_symlink() is not works
    assert names(outside) == []


def test_refuse_wants_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        with pytest.raises(TargetNotEmpty):
            target.preflight(0)
        assert not put(target, *a_file(b"there"))
        assert target.report.failed == [(b"there", "something with this name is there already")]
    assert (tmp_path / "there").read_text() == "x"


def test_copy_goes_beside(tmp_path: Path) -> None:
    long = "l" * 255
    for name in ("file", "file.restored-1", long):
        (tmp_path / name).write_text("old")
    (tmp_path / "folder").mkdir()
    with Target(HOST, tmp_path, conflict=Conflict.COPY) as target:
        target.preflight(0)
        assert put(target, *a_file(b"file", links=2))
        assert put(target, *a_file(b"folder"))
        assert put(target, *a_file(long.encode()))
        assert target.hard_link(a_file(b"another name", links=2)[0], b"file")
        report = target.finish()
    shortened = "l" * 244 + ".restored-1"
    assert names(tmp_path) == sorted(
        ["another name", "file", "file.restored-1", "file.restored-2", "folder", "folder.restored-1", long, shortened]
    )
    assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "another name").read_text() == "new"
    assert report.copies[b"file"] == b"file.restored-2"
    assert (report.files, report.failed) == (4, [])


def test_skip_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir(mode=0o701)
    with Target(HOST, tmp_path, conflict=Conflict.SKIP) as target:
        assert not put(target, *a_file(b"file", links=2))
        assert target.directory(a_node(b"folder", Kind.DIRECTORY, mode=0o777))
        assert put(target, *a_file(b"folder/new"))
        # Its first name was skipped: what is there is another file, so the second is restored by its content.
        second, content = a_file(b"second", links=2)
        assert not target.hard_link(second, b"file")
        assert put(target, second, content)
        report = target.finish()
    assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "second").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o701
    assert (report.skipped, report.files, report.failed) == (1, 2, [])


def test_overwrite_replaces_files_and_links_but_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    os.link(tmp_path / "file", tmp_path / "its other name")
    os.symlink("file", tmp_path / "link")
    (tmp_path / "folder/inner").mkdir(parents=True)
    with Target(HOST, tmp_path, conflict=Conflict.OVERWRITE) as target:
        assert put(target, *a_file(b"file"))
        assert put(target, *a_file(b"link"))
        assert not put(target, *a_file(b"folder"))
        assert target.hard_link(a_file(b"its other name")[0], b"file")
        assert target.hard_link(a_file(b"its other name")[0], b"file")  # again: it is that file already
        report = target.finish()
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "its other name").read_text() == "new"
    assert (tmp_path / "folder/inner").is_dir()
    assert report.failed == [(b"folder", "a folder is in the way")]
    assert names(tmp_path) == ["file", "folder", "its other name", "link"]


def test_what_appears_while_it_is_written_is_not_replaced(tmp_path: Path) -> None:
    for conflict in (Conflict.REFUSE, Conflict.SKIP, Conflict.COPY):
        root = tmp_path / conflict
        with Target(HOST, root, conflict=conflict) as target:
            writer = target.file(a_file(b"file")[0])
            assert writer is not None
            (root / "file").write_text("theirs")
            assert writer.commit() is (conflict is Conflict.COPY)
        assert (root / "file").read_text() == "theirs"
        assert not [name for name in names(root) if name.startswith(".")]


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        writer = target.file(a_file(b"folder/file")[0])
        assert writer is not None
        writer.write_at(0, b"half")
        assert len(names(tmp_path / "folder")) == 1
        writer.abort("its pack is damaged")
        assert target.report.failed == [(b"folder/file", "its pack is damaged")]
    assert names(tmp_path / "folder") == []


def test_a_file_never_appears_half(tmp_path: Path) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        writer = target.file(a_file(b"file", b"123456")[0])
        assert writer is not None
        writer.write_at(3, b"456")
        assert not (tmp_path / "file").exists()
        writer.write_at(0, b"123")
        assert writer.commit()
    assert (tmp_path / "file").read_text() == "123456"


def test_another_owners_file(tmp_path: Path) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        assert put(target, *a_file(b"file", uid=12345, gid=12345, mode=0o6755))
        report = target.finish()
    status = (tmp_path / "file").stat()
    assert report.failed == []
    if IS_ROOT:
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12345, 0o6755)
        assert report.notes == {}
    else:
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o755)
        assert sum(report.notes.values()) == 2


def test_owner_by_name(tmp_path: Path) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE, numeric_owner=False) as target:
        entry, content = a_file(b"file", uid=12345, gid=12345, owner="root", group="root")
        assert put(target, entry, content)
        report = target.finish()
    assert report.failed == []
    assert (tmp_path / "file").stat().st_uid == (0 if IS_ROOT else os.geteuid())


def test_attributes_that_are_not_permitted_are_notes(tmp_path: Path) -> None:
    attributes = ((b"bogus.name", b"1"), (b"trusted.key", b"2"), (b"user.key", b"3"))
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        assert put(target, *a_file(b"file", xattrs=attributes, mode=0o400))
        report = target.finish()
    assert os.getxattr(tmp_path / "file", "user.key") == b"3"
    assert report.failed == []
    assert any("bogus.*" in note for note in report.notes)
    assert any("trusted.*" in note for note in report.notes) is not IS_ROOT


def test_device_nodes_are_for_root(tmp_path: Path) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        made = target.node(a_node(b"null", Kind.CHAR_DEVICE, node=(1, 3), mode=0o666))
        report = target.finish()
    assert made is IS_ROOT
    assert report.failed == ([] if IS_ROOT else [(b"null", "not permitted")])
    if IS_ROOT:
        assert os.stat(tmp_path / "null").st_rdev == os.makedev(1, 3)
        assert stat.S_IMODE(os.stat(tmp_path / "null").st_mode) == 0o666


def test_a_kind_from_the_future_is_named(tmp_path: Path) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        assert not target.node(Entry(path=b"whiteout", kind=99))
        assert target.report.failed[0][1].startswith("not restored: this version does not know")


@pytest.mark.parametrize("seconds", [-(1 << 31) - 100, -1, 0, 1 << 34, 1 << 45, -(1 << 60)])
def test_any_time(tmp_path: Path, seconds: int) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        assert put(target, *a_file(b"file", mtime=(seconds, 999_999_999)))
        report = target.finish()
    stored = os.stat(tmp_path / "file").st_mtime_ns // 10**9
    assert stored == seconds or report.notes == {"the file system cannot hold the time": 1}


def test_closed_folder_is_closed_last(tmp_path: Path) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target:
        for path, mode in ((b"a", 0o500), (b"a/b", 0o000), (b"a/b/c", 0o111)):
            assert target.directory(a_node(path, Kind.DIRECTORY, mode=mode))
        assert put(target, *a_file(b"a/b/c/file"))
        report = target.finish()
    assert report.failed == []
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0
    assert (tmp_path / "a").stat().st_mtime_ns == 1_000_000 * 10**9 + 5
    (tmp_path / "a").chmod(0o700)
    (tmp_path / "a/b").chmod(0o700)
    (tmp_path / "a/b/c").chmod(0o700)


def test_missing_parents_are_made(tmp_path: Path) -> None:
    with Target(HOST, tmp_path / "x/y", conflict=Conflict.REFUSE) as target:
        assert put(target, *a_file(b"deep/er/file"))
    assert (tmp_path / "x/y/deep/er/file").read_text() == "new"


def test_no_space(tmp_path: Path) -> None:
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target, pytest.raises(NoSpace, match="bytes"):
        target.preflight(1 << 60)


class FullFile:
    """A new file on a volume that fills up when it is written."""

    def __init__(self, inner: NewFile) -> None:
        self.inner = inner
        self.discard, self.apply, self.place = inner.discard, inner.apply, inner.place

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullTree(LinuxTargetTree):
    def new_file(self, directory: bytes, size: int) -> FullFile:
        return FullFile(super().new_file(directory, size))


class FullHost(LinuxHost):
    def target(self, root: Path, *, numeric_owner: bool) -> FullTree:
        return FullTree(root, numeric_owner=numeric_owner)


def test_a_volume_that_fills_up_ends_the_restore(tmp_path: Path) -> None:
    with Target(FullHost(), tmp_path, conflict=Conflict.REFUSE) as target:
        writer = target.file(a_file(b"file")[0])
        assert writer is not None
        with pytest.raises(NoSpace, match="is full"):
            writer.write_at(0, b"new")
        writer.abort("no space left on the volume")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(TargetNotWritable):
        Target(HOST, Path("/proc/self/stateward"), conflict=Conflict.REFUSE)


def test_a_folder_that_is_a_file_or_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TargetNotWritable):
        Target(HOST, tmp_path / "file", conflict=Conflict.REFUSE)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with Target(HOST, closed, conflict=Conflict.REFUSE) as target:
        if IS_ROOT:
            target.preflight(0)
        else:
            with pytest.raises(TargetNotWritable, match="permission denied"):
                target.preflight(0)


def test_many_threads(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Target(HOST, tmp_path, conflict=Conflict.REFUSE) as target, ThreadPoolExecutor(8) as pool:
        done = pool.map(lambda n: put(target, *a_file(b"%d/%d/%d" % (n % 3, n % 7, n), b"%d" % n)), range(300))
        assert all(done)
        assert target.finish().files == 300
    assert len(os.listdir("/proc/self/fd")) == before
    assert sorted(int(file.read_text()) for file in tmp_path.rglob("*/*/*")) == list(range(300))
