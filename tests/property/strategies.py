"""Trees of files as data, and how to make them, edit them, and make things of the vault from chance."""

from __future__ import annotations

import os
import random
import stat
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st
from vault_rig import SMALL

BOUNDARIES = sorted(
    {
        0,
        1,
        *(
            limit + step
            for limit in (
                SMALL.min_size,
                SMALL.average_size,
                SMALL.max_size,
                SMALL.bundle_limit,
                SMALL.segment_size,
                2 * SMALL.segment_size,
                2 * SMALL.max_size,
            )
            for step in (-1, 0, 1)
        ),
    }
)
"""Sizes around each boundary of a vault in miniature."""

names = st.one_of(
    st.sampled_from(
        [
            b"a",
            b"b",
            b"a-b",
            b"a.b",
            b" ",
            b"two\nlines",
            b"\xff\xfe\x01",
            b"n" * 255,
            "ü".encode(),
            b"shadow",
            b"id_rsa",
            b"*",
        ]
    ),
    st.binary(min_size=1, max_size=12).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
    ),
)
paths = st.lists(names, min_size=1, max_size=3).map(tuple)
times = st.one_of(
    st.sampled_from([0, -1, 1_700_000_000_123_456_789, -2_524_521_600_000_000_001, 4_000_000_000_000_000_001]),
    st.integers(-(2**61), 2**61),
)


@dataclass(frozen=True)
class Node:
    """A file to be made. Content is told by its seed, so that an example stays readable."""

    kind: str
    size: int = 0
    seed: int = 0
    """0 is content that compresses to nothing."""
    hole: bool = False
    mode: int = 0o644
    time_ns: int = 0
    target: bytes = b""
    attribute: bytes = b""

    @property
    def content(self) -> bytes:
        if self.seed == 0:
            return b"\0" * self.size if self.hole else b"same " * (self.size // 5) + b"!" * (self.size % 5)
        return random.Random(self.seed).randbytes(self.size)


files = st.builds(
    Node,
    kind=st.just("file"),
    size=st.one_of(st.sampled_from(BOUNDARIES), st.integers(0, 3 * SMALL.segment_size)),
    seed=st.integers(0, 4),
    hole=st.booleans(),
    mode=st.sampled_from([0o644, 0o600, 0o400, 0o755, 0o4755, 0o777]),
    time_ns=times,
    attribute=st.sampled_from([b"", b"", b"\0\xff", b"v" * 300]),
)
others = st.one_of(
    st.builds(
        Node, kind=st.just("symlink"), target=st.binary(min_size=1, max_size=40).filter(lambda x: b"\0" not in x)
    ),
    st.builds(Node, kind=st.just("fifo"), mode=st.sampled_from([0o600, 0o644]), time_ns=times),
    st.builds(Node, kind=st.just("socket"), mode=st.just(0o640), time_ns=times),
    st.builds(Node, kind=st.just("folder"), mode=st.sampled_from([0o755, 0o700, 0o711]), time_ns=times),
    st.builds(Node, kind=st.just("hard link")),
)
trees = st.dictionaries(paths, st.one_of(files, files, others), max_size=14)


def make_tree(root: Path, tree: dict[tuple[bytes, ...], Node]) -> None:
    """Make as much of the tree as there can be: a name under a name that is no folder is left out."""
    base = os.fsencode(root)
    regular: list[bytes] = []
    folders: list[tuple[bytes, Node]] = []
    for parts, node in sorted(tree.items()):
        path = b"/".join((base, *parts))
        if _made_folders(base, parts[:-1]) and not os.path.lexists(path):
            _make_node(path, node, regular, folders)
    for path, node in reversed(folders):
        os.utime(path, ns=(0, node.time_ns))


def _made_folders(base: bytes, parts: tuple[bytes, ...]) -> bool:
    """Whether the folders are there now; a link is none, wherever it leads."""
    path = base
    for part in parts:
        path += b"/" + part
        if not os.path.lexists(path):
            os.mkdir(path)  # noqa: PTH102  # a path of bytes
        elif not stat.S_ISDIR(os.lstat(path).st_mode):
            return False
    return True


def _make_node(path: bytes, node: Node, regular: list[bytes], folders: list[tuple[bytes, Node]]) -> None:
    if node.kind == "hard link":
        if regular:
            os.link(regular[-1], path)
        return
    if node.kind == "symlink":
        Path(os.fsdecode(path)).symlink_to(os.fsdecode(node.target))
        return
    if node.kind == "folder":
        os.mkdir(path)  # noqa: PTH102  # a path of bytes
        folders.append((path, node))
    elif node.kind == "fifo":
        os.mkfifo(path)
    elif node.kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        with open(path, "wb") as file:  # noqa: PTH123  # a path of bytes
            if node.hole:
                file.truncate(node.size)
                file.seek(node.size // 2)
                file.write(node.content[node.size // 2 :] if node.seed else b"")
            else:
                file.write(node.content)
        if node.attribute:
            os.setxattr(path, "user.test", node.attribute)
        regular.append(path)
    os.chmod(path, node.mode)  # noqa: PTH101  # a path of bytes
    os.utime(path, ns=(0, node.time_ns))
