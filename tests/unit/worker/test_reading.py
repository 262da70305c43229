# ruff: noqa: PTH208, PTH211
from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from worker_trees import HOST, IS_ROOT, scanned

from worker.platform.api import SourceFile, SourceUnreadable
from worker.platform.fake import FakeFiles
from worker.reading import content_digest, describe_again, open_source, pieces

if TYPE_CHECKING:
    from pathlib import Path


def only(folder: Path) -> SourceFile:
    [file], _ = scanned(folder)
    return file


def test_content_and_digest(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    with open_source(HOST.files, only(tmp_path)) as handle:
        assert list(handle.extents()) == [(0, len(data))]
        assert b"".join(bytes(view) for _, _, view in pieces(handle) if view is not None) == data
        assert content_digest(handle) == blake3(data).digest()
        buffer = bytearray(10)
        assert handle.read_into(buffer, len(data) - 4) == 4
        assert not handle.changed()


def test_holes_are_not_read_and_count_as_zeros(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as out:
        out.truncate(8 << 20)
        out.seek(4 << 20)
        out.write(b"middle")
    with open_source(HOST.files, only(tmp_path)) as handle:
        read = sum(length for _, length in handle.extents())
        assert 0 < read < 1 << 20
        parts = list(pieces(handle))
        assert sum(length for _, length, _ in parts) == 8 << 20
        assert content_digest(handle) == blake3((tmp_path / "sparse").read_bytes()).digest()


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_empty_and_all_hole(tmp_path: Path, size: int) -> None:
    with (tmp_path / "file").open("wb") as out:
        out.truncate(size)
    with open_source(HOST.files, only(tmp_path)) as handle:
        assert list(handle.extents()) == []
        assert content_digest(handle) == blake3(bytes(size)).digest()


@pytest.mark.parametrize("how", ["append", "rewrite", "replace", "remove", "chmod"])
def test_a_change_while_reading_is_seen(tmp_path: Path, how: str) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    source = only(tmp_path)
    with open_source(HOST.files, source) as handle:
        assert not handle.changed()
        if how == "append":
            with file.open("a") as out:
                out.write("more")
        elif how == "rewrite":
            file.write_text("AFTER!")
            os.utime(file, ns=(1, 1))
        elif how == "replace":
            (tmp_path / "new").write_text("another")
            (tmp_path / "new").replace(file)
        elif how == "remove":
            file.unlink()
        else:
            file.chmod(0o700)
        assert handle.changed()


def test_a_file_that_becomes_shorter_is_said_to_have_changed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes([1]) * 100_000)
    with open_source(HOST.files, only(tmp_path)) as handle:
        os.truncate(file, 10)
        with pytest.raises(SourceUnreadable, match="changed while it was read"):
            content_digest(handle)


def test_grown_since_it_was_listed_is_described_anew(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    source = only(tmp_path)
    file.write_text("longer")
    with open_source(HOST.files, source) as handle:
        assert handle.entry.size == 6
        assert handle.entry.path == source.entry.path


@pytest.mark.parametrize("what", ["fifo", "link", "folder", "other file"])
def test_what_took_a_files_place_is_not_read(tmp_path: Path, what: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    source = only(tmp_path)
    kept = tmp_path / "kept"
    file.rename(kept)  # its inode stays in use
    if what == "fifo":
        os.mkfifo(file)
    elif what == "link":
        os.symlink("/etc/passwd", file)
    elif what == "folder":
        file.mkdir()
    else:
        file.write_text("y")
    with pytest.raises(SourceUnreadable, match="no longer the file"), open_source(HOST.files, source):
        pass
    if what == "other file":
        with open_source(HOST.files, describe_again(HOST.files, source)) as handle:
            assert not handle.changed()
    else:
        with pytest.raises(SourceUnreadable):
            describe_again(HOST.files, source)


def test_reasons(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    source = only(tmp_path)
    file.chmod(0)
    if IS_ROOT:
        with open_source(HOST.files, source) as handle:
            assert content_digest(handle) == blake3(b"x").digest()
    else:
        with pytest.raises(SourceUnreadable, match="permission denied"), open_source(HOST.files, source):
            pass
    file.unlink()
    with pytest.raises(SourceUnreadable, match="vanished"), open_source(HOST.files, source):
        pass


def test_scripted_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    source = only(tmp_path)
    files = FakeFiles(inner=HOST.files, scripts={b"file": "changed denied ok"})
    with open_source(files, source) as handle:
        assert handle.changed()
    with pytest.raises(SourceUnreadable, match="denied"), open_source(files, source):
        pass
    with open_source(files, source) as handle:
        assert not handle.changed()


def test_descriptors_are_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    source = only(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with open_source(HOST.files, source) as handle:
            handle.close()
    assert len(os.listdir("/proc/self/fd")) == before
