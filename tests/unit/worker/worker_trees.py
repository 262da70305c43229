# ruff: noqa: PTH211
"""Every kind of file the worker meets, made for tests."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from worker.platform import this_host
from worker.platform.api import SourceFile, SourceRoot
from worker.reading import content_digest, open_source
from worker.scan import scan

if TYPE_CHECKING:
    from common.vault.entry import Entry

IS_ROOT = os.geteuid() == 0
HOST = this_host()
ODD_NAMES = (b"\xff\xfe not utf-8", b"two\nlines", b"n" * 255, b"-", b".hidden", b" blank ", b"*glob?")


def make_socket(path: bytes) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o640)


def make_every_kind(root: Path) -> None:
    base = os.fsencode(root)
    (root / "folder/inner").mkdir(parents=True)
    (root / "folder/inner/file").write_bytes(b"content")
    (root / "empty").write_bytes(b"")
    (root / "empty folder").mkdir(mode=0o711)
    for name in ODD_NAMES:
        Path(os.fsdecode(base + b"/folder/" + name)).write_bytes(name)
    os.symlink("nowhere/at all", root / "dangling")
    os.symlink("folder", root / "link to folder")
    os.mkfifo(root / "fifo", 0o600)
    make_socket(base + b"/socket")
    (root / "first name").write_bytes(b"one file, two names")
    os.link(root / "first name", root / "folder/second name")
    with (root / "sparse").open("wb") as out:
        out.truncate(3 << 20)
        out.seek(1 << 20)
        out.write(b"x" * 5000)
    (root / "old").write_bytes(b"1890")
    os.utime(root / "old", ns=(-2_524_521_600_000_000_123, -2_524_521_600_000_000_123))
    (root / "far").write_bytes(b"2500")
    os.utime(root / "far", ns=(16_725_225_600_000_000_123, 16_725_225_600_000_000_123))
    (root / "odd mode").write_bytes(b"#!/bin/sh\n")
    (root / "odd mode").chmod(0o4751)
    (root / "attributes").write_bytes(b"a")
    os.setxattr(root / "attributes", "user.comment", b"\x00binary\xff")
    if IS_ROOT:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 99))
        (root / "another's").write_bytes(b"given away")
        os.chown(root / "another's", 12345, 54321)
        os.lchown(root / "dangling", 12345, 54321)


def scanned(root: Path, **options: object) -> tuple[list[SourceFile], list[tuple[bytes, str]]]:
    """Everything below a folder, its content as the tree."""
    warnings: list[tuple[bytes, str]] = []
    found = scan(
        [SourceRoot(real=os.fsencode(root), tree=b"")],
        files=HOST.files,
        warn=lambda path, reason: warnings.append((path, reason)),
        **options,  # type: ignore[arg-type]
    )
    return list(found), warnings


def paths(files: list[SourceFile]) -> list[bytes]:
    return [file.entry.path for file in files]


def with_digest(file: SourceFile) -> Entry:
    """The entry as a backup would store it."""
    import msgspec

    with open_source(HOST.files, file) as handle:
        return msgspec.structs.replace(handle.entry, digest=content_digest(handle))
