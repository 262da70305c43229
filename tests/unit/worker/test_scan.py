# ruff: noqa: PTH102, PTH116, PTH208, PTH211
from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_trees import HOST, IS_ROOT, ODD_NAMES, make_every_kind, paths, scanned

from common.vault.entry import Kind, path_order
from worker.excludes import Excludes
from worker.platform.api import SourceRoot
from worker.scan import scan

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.one_of(
    st.sampled_from([b"a", b"a-b", b"a.b", b"a b", b"a\n", b"b", b"-", b"\x01", b"\xff", b"A"]),
    st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b"..")),
)
TREES = st.recursive(st.none(), lambda inner: st.dictionaries(NAMES, inner, max_size=6), max_leaves=25)


def make(base: bytes, tree: dict[bytes, object] | None) -> None:
    if tree is None:
        os.close(os.open(base, os.O_CREAT | os.O_WRONLY, 0o600))
        return
    os.mkdir(base)
    for name, below in tree.items():
        make(base + b"/" + name, below)  # type: ignore[arg-type]


def listed(tree: dict[bytes, object] | None, prefix: bytes = b"") -> list[bytes]:
    found = []
    for name, below in (tree or {}).items():
        found.append(prefix + name)
        found += listed(below, prefix + name + b"/")  # type: ignore[arg-type]
    return found


@settings(max_examples=60, deadline=None)
@given(tree=st.dictionaries(NAMES, TREES, max_size=6))
def test_order_is_path_order_for_any_tree(tree: dict[bytes, object], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("tree") / "root"
    make(os.fsencode(root), tree)
    files, warnings = scanned(root)
    assert paths(files) == sorted(listed(tree), key=path_order)
    assert warnings == []


def test_every_kind_is_an_entry(tmp_path: Path) -> None:
    make_every_kind(tmp_path)
    files, warnings = scanned(tmp_path)
    found = {file.entry.path: file.entry for file in files}
    assert warnings == []
    assert found[b"folder"].kind == Kind.DIRECTORY
    assert found[b"folder/inner/file"].size == 7
    assert found[b"dangling"].kind == Kind.SYMLINK
    assert found[b"dangling"].target == b"nowhere/at all"
    assert found[b"link to folder"].kind == Kind.SYMLINK
    assert b"link to folder/inner" not in found
    assert found[b"fifo"].kind == Kind.FIFO
    assert found[b"socket"].kind == Kind.SOCKET
    assert found[b"sparse"].size == 3 << 20
    assert found[b"odd mode"].mode == 0o4751
    assert found[b"attributes"].xattrs == ((b"user.comment", b"\x00binary\xff"),)
    first, second = found[b"first name"], found[b"folder/second name"]
    assert (first.device, first.inode, first.links) == (second.device, second.inode, 2)
    assert all(b"folder/" + name in found for name in ODD_NAMES)
    for name in ("old", "far"):
        seconds, ns = found[name.encode()].mtime
        assert seconds * 10**9 + ns == os.stat(tmp_path / name).st_mtime_ns
        assert 0 <= ns < 10**9
    if IS_ROOT:
        assert found[b"null"].kind == Kind.CHAR_DEVICE
        assert found[b"null"].node == (1, 3)
        assert found[b"disk"].kind == Kind.BLOCK_DEVICE
        assert (found[b"another's"].uid, found[b"another's"].gid, found[b"another's"].owner) == (12345, 54321, "")
    assert found[b"folder"].owner != "" or not IS_ROOT


def test_folder_without_permission_is_listed_and_warned_about(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "inside").write_text("x")
    (tmp_path / "open").write_text("x")
    closed.chmod(0)
    files, warnings = scanned(tmp_path)
    closed.chmod(0o700)
    if IS_ROOT:
        assert (paths(files), warnings) == ([b"closed", b"closed/inside", b"open"], [])
    else:
        assert paths(files) == [b"closed", b"open"]
        assert warnings == [(b"closed", "its content could not be listed: permission denied")]


def test_file_that_vanishes_between_listing_and_description(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text("x")
    warnings: list[tuple[bytes, str]] = []
    walk = scan(
        [SourceRoot(real=os.fsencode(tmp_path), tree=b"")],
        files=HOST.files,
        warn=lambda path, reason: warnings.append((path, reason)),
    )
    assert next(walk).entry.path == b"a"
    (tmp_path / "b").unlink()
    assert [file.entry.path for file in walk] == [b"c"]
    assert warnings == [(b"b", "vanished")]


def test_an_empty_source_and_a_missing_root(tmp_path: Path) -> None:
    assert scanned(tmp_path) == ([], [])
    warnings: list[tuple[bytes, str]] = []
    root = HOST.source_root(tmp_path / "missing")
    found = list(scan([root], files=HOST.files, warn=lambda path, reason: warnings.append((path, reason))))
    assert [file.entry.kind for file in found] == [Kind.DIRECTORY] * len(found)  # the folders that lead to it
    assert warnings == [(root.tree, "vanished")]


def test_several_roots_make_one_ordered_tree(tmp_path: Path) -> None:
    for name in ("one/deep/x", "one/deep/y", "one-other/z", "two/w"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "one").chmod(0o701)
    generated = tmp_path / "two"
    roots = [
        HOST.source_root(tmp_path / "one-other"),
        HOST.source_root(tmp_path / "one/deep"),
        HOST.source_root(tmp_path / "one/deep/x"),
        SourceRoot(real=os.fsencode(generated), tree=b".stateward/facts"),
    ]
    warnings: list[object] = []
    files = list(scan(roots, files=HOST.files, warn=lambda *warning: warnings.append(warning)))
    found = paths(files)
    base = os.fsencode(tmp_path).strip(b"/")
    assert found == sorted(set(found), key=path_order)
    assert [path for path in found if path.startswith(base + b"/")] == [
        base + b"/one",
        base + b"/one/deep",
        base + b"/one/deep/x",
        base + b"/one/deep/y",
        base + b"/one-other",
        base + b"/one-other/z",
    ]
    entries = {file.entry.path: file.entry for file in files}
    assert entries[base + b"/one"].mode == 0o701  # the real metadata of a folder between
    assert entries[b".stateward"].kind == Kind.DIRECTORY
    assert entries[b".stateward/facts/w"].size == len("two/w")
    assert warnings == []


def test_a_root_inside_a_root_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("x")
    roots = [HOST.source_root(tmp_path / "a"), HOST.source_root(tmp_path / "a/b"), HOST.source_root(tmp_path / "a")]
    found = paths(list(scan(roots, files=HOST.files, warn=lambda *_: None)))
    assert len(found) == len(set(found))
    assert found[-1].endswith(b"/a/b/c")


def test_a_path_through_a_link_is_named_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("x")
    os.symlink("real", tmp_path / "link")
    assert HOST.source_root(tmp_path / "link/file").real == os.fsencode(tmp_path / "real/file")
    assert HOST.source_root(tmp_path / "link").real == os.fsencode(tmp_path / "link")


@pytest.mark.parametrize(
    ("glob", "left"),
    [
        ("*.tmp", [b"cache", b"cache/deep", b"cache/deep/x", b"cache/y", b"z"]),
        ("cache", [b"a.tmp", b"z"]),
        ("/cache/**", [b"a.tmp", b"cache", b"z"]),
        ("/deep", [b"a.tmp", b"cache", b"cache/deep", b"cache/deep/b.tmp", b"cache/deep/x", b"cache/y", b"z"]),
        ("deep/*", [b"a.tmp", b"cache", b"cache/deep", b"cache/y", b"z"]),
        ("/**/x", [b"a.tmp", b"cache", b"cache/deep", b"cache/deep/b.tmp", b"cache/y", b"z"]),
        ("[x-z]", [b"a.tmp", b"cache", b"cache/deep", b"cache/deep/b.tmp"]),
        ("/?.tmp", [b"cache", b"cache/deep", b"cache/deep/b.tmp", b"cache/deep/x", b"cache/y", b"z"]),
        ("cache/", [b"a.tmp", b"z"]),
    ],
)
def test_excludes(tmp_path: Path, glob: str, left: list[bytes]) -> None:
    (tmp_path / "cache/deep").mkdir(parents=True)
    for name in ("a.tmp", "cache/deep/b.tmp", "cache/deep/x", "cache/y", "z"):
        (tmp_path / name).write_text("x")
    files, _ = scanned(tmp_path, excludes=Excludes([glob]))
    assert paths(files) == left


@given(glob=st.text(alphabet="ab*?[]!^-/\\.&~|", max_size=12), path=st.binary(max_size=12))
def test_any_glob_compiles_and_matches_without_error(glob: str, path: bytes) -> None:
    Excludes([glob]).match(path)


def test_excluded_folder_is_not_opened(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    assert scanned(tmp_path, excludes=Excludes(["/closed"])) == ([], [])
    closed.chmod(0o700)


def test_kernel_file_systems_are_listed_and_not_entered() -> None:
    excludes = Excludes([f"/{name}/*" for name in sorted(os.listdir("/")) if name not in ("proc", "sys", "dev", "run")])
    root = SourceRoot(real=b"/", tree=b"")
    found = paths(list(scan([root], files=HOST.files, warn=lambda *_: None, excludes=excludes)))
    assert b"proc" in found
    assert not [path for path in found if path.startswith((b"proc/", b"sys/", b"dev/", b"run/"))]
    one = paths(list(scan([root], files=HOST.files, warn=lambda *_: None, excludes=excludes, one_file_system=True)))
    assert one == found


def test_modes_and_owners_are_the_systems(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    file.chmod(0o640)
    [found], _ = scanned(tmp_path)
    status = file.lstat()
    assert (found.entry.mode, found.entry.uid, found.entry.gid) == (0o640, status.st_uid, status.st_gid)
    assert stat.S_ISREG(status.st_mode)
    assert found.entry.ctime == divmod(status.st_ctime_ns, 10**9)
