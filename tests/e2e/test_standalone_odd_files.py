"""Everything a file system can hold, backed up and restored by `stateward-worker`: every entry comes back as it was."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from e2e_programs import ROOT, below, content_of
from e2e_site import Site, new_site

pytestmark = pytest.mark.timeout(120)
GIB = 1 << 30
SECOND = 10**9


def entries(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Kind, mode, owner, size, time, device, link and content of everything below; hard links as groups."""
    top = os.fsencode(folder)
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[int, bytes] = {}
    for where, folders, names in sorted(os.walk(top)):
        for name in sorted([*folders, *names]):
            path = os.path.join(where, name)  # noqa: PTH118  bytes
            seen = os.lstat(path)
            tree = os.path.relpath(path, top)
            is_file = stat.S_ISREG(seen.st_mode)
            found[tree] = (
                seen.st_mode,
                seen.st_uid,
                seen.st_gid,
                0 if stat.S_ISDIR(seen.st_mode) else seen.st_size,
                seen.st_mtime_ns,
                seen.st_rdev,
                os.fsencode(Path(os.fsdecode(path)).readlink()) if stat.S_ISLNK(seen.st_mode) else None,
                groups.setdefault(seen.st_ino, tree) if is_file else None,
                Path(os.fsdecode(path)).read_bytes() if is_file and seen.st_size < GIB else None,
            )
    return found


def make(folder: Path, name: bytes, content: bytes = b"content") -> bytes:
    path = os.path.join(os.fsencode(folder), name)  # noqa: PTH118  bytes
    with open(path, "wb") as file:  # noqa: PTH123  bytes
        file.write(content)
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A source with one of everything."""
    site = new_site(tmp_path_factory.mktemp("odd"))
    source = site.source
    for name in (b"latin-\xe9\xff\xfe", b"two\nlines", b"tab\tand \x1b[31mcolour", b"n" * 255, b"-rf *", b" ", b"\\"):
        make(source, name, b"content of " + name)
    make(source, b"empty", b"")
    for name, seconds in ((b"1900", -2_208_988_800), (b"1902", -(2**31)), (b"2446", 15_032_385_535), (b"2500", 2**34)):
        os.utime(make(source, name), ns=(seconds * SECOND + 123_456_789,) * 2)
    first = make(source, b"hard-1", b"one file of three names")
    (source / "folder").mkdir()
    os.link(first, source / "hard-2")
    os.link(first, source / "folder" / "hard-3")
    (source / "empty folder").mkdir(mode=0o711)
    (source / "dangling").symlink_to("nowhere/at all")
    (source / "badly named").symlink_to(os.fsdecode(b"\xff\xfe"))
    os.mkfifo(source / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(source / "socket"))
    if ROOT:
        os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(source / "loop", 0o660 | stat.S_IFBLK, os.makedev(7, 250))
        os.chown(source / "empty", 12345, 23456)
    with (source / "sparse").open("wb") as file:
        file.write(b"begins")
        file.seek(3 * GIB)
        file.write(b"ends")
    os.utime(source, ns=(SECOND, SECOND))
    return site


def test_every_entry_comes_back_as_it_was(odd: Site, tmp_path: Path) -> None:
    before = entries(odd.source)
    assert {os.lstat(odd.source / name).st_mtime_ns // SECOND for name in ("1902", "2446")} == {
        -(2**31),
        15_032_385_535,
    }
    done = odd.run("backup", odd.source)
    assert done.fine()["warnings"] == []
    restored = odd.recover(tmp_path / "out").fine()
    assert restored["failed"] == []
    assert entries(below(tmp_path / "out", odd.source)) == before

    sparse = below(tmp_path / "out", odd.source) / "sparse"
    assert sparse.stat().st_blocks * 512 < 1 << 20
    with sparse.open("rb") as file:
        assert file.read(6) == b"begins"
        file.seek(3 * GIB - 4096)
        assert file.read() == bytes(4096) + b"ends"
    assert sum(map(len, content_of(odd.vault).values())) < 1 << 20, "holes were stored"


def test_one_file_of_a_strange_name_is_read_by_it(odd: Site, tmp_path: Path) -> None:
    odd.run("backup", odd.source).fine()
    done = odd.recover(tmp_path / "out", "--include", "**/two*lines")
    assert done.fine()["files"] == 1
    assert content_of(below(tmp_path / "out", odd.source)) == {"two\nlines": b"content of two\nlines"}


def test_an_empty_source_is_a_point_all_the_same(odd: Site, tmp_path: Path) -> None:
    empty = tmp_path / "nothing in it"
    empty.mkdir()
    done = odd.run("backup", empty).fine()
    assert (done["files"], done["logical_bytes"], done["warnings"]) == (0, 0, [])
    assert odd.recover(tmp_path / "out").fine()["failed"] == []
    assert list(below(tmp_path / "out", empty).iterdir()) == []


def test_a_folder_without_permission_is_a_warning_by_its_path(odd: Site, tmp_path: Path) -> None:
    """Root reads it; for anybody else the point exists, and exit code 3 and the path say what it lacks."""
    source = tmp_path / "source"
    (source / "closed").mkdir(parents=True)
    (source / "closed" / "secret").write_text("secret")
    (source / "unreadable").write_text("unreadable")
    (source / "open").write_text("open")
    (source / "closed").chmod(0)
    (source / "unreadable").chmod(0)
    try:
        done = odd.run("backup", source)
        odd.recover(tmp_path / "out").fine()
    finally:
        (source / "closed").chmod(0o700)
    restored = below(tmp_path / "out", source)
    if ROOT:
        assert done.fine()["warnings"] == []
        assert content_of(restored)["closed/secret"] == b"secret"
    else:
        assert done.code == 3, done.err
        warned = {f"/{each['path']}": each["reason"] for each in done.document["warnings"]}
        assert set(warned) == {str(source / "closed"), str(source / "unreadable")}
        assert all("permission denied" in reason for reason in warned.values())
        assert content_of(restored) == {"open": b"open"}
