"""One line of the file tree: what a recovery point keeps of a file besides its bytes.

Paths are bytes, relative to the tree's root, without a leading separator, `/` between components (on Windows too: `C/Users/…`,
UTF-8 with surrogates passed through). The order of a tree is the order of `path_order`: names compared component by
component, which is the order of a depth-first walk with sorted names.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Kind(IntEnum):
    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    FIFO = 3
    SOCKET = 4
    CHAR_DEVICE = 5
    BLOCK_DEVICE = 6


Time = tuple[int, int]
"""Seconds since 1970 (negative before) and nanoseconds 0…999,999,999: int64 nanoseconds end in 2262, file systems do not."""


class Stream(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A Windows alternate data stream, kept like a file's content."""

    name: bytes
    """UTF-8 with surrogates passed through, without the colon and `:$DATA`."""
    size: int = 0
    digest: bytes = b""
    ranges: tuple[int, ...] = ()
    range_blocks: tuple[int, ...] = ()


class Entry(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A file, directory, link or node. On the wire a msgpack array in the order of these fields; readers ignore more."""

    path: bytes
    kind: int
    """A `Kind`. A number this reader does not know is named as not restored; it is not an error of the tree."""
    size: int = 0
    """Bytes of content of a FILE (holes included), else 0."""
    mtime: Time = (0, 0)
    ctime: Time = (0, 0)
    """Time of the last change of the metadata; not restored, but tells an unchanged file."""
    mode: int = 0
    """Permission bits, 0o0000 … 0o7777."""
    uid: int = 0
    gid: int = 0
    owner: str = ""
    """The owner's name at the source, empty when unknown; for people and for restores to another host."""
    group: str = ""
    device: int = 0
    """Source's device number; together with `inode` it finds hard links of one file."""
    inode: int = 0
    links: int = 1
    """Number of hard links at the source."""
    target: bytes = b""
    """What a SYMLINK points to, verbatim."""
    node: tuple[int, int] = (0, 0)
    """Major and minor number of a device node."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    """Extended attributes (ACLs, capabilities and SELinux labels among them), sorted by name."""
    security: bytes = b""
    """Windows: the self-relative security descriptor."""
    attributes: int = 0
    """Windows: file attributes."""
    streams: tuple[Stream, ...] = ()
    """Windows: alternate data streams."""
    digest: bytes = b""
    """BLAKE3 (32 bytes) of the content of a FILE as it was read; holes count as zeros. Empty for other kinds."""
    ranges: tuple[int, ...] = ()
    """Content of a FILE in order: flat triples (block, offset, length). `block` counts in the tree block's own table;
    −1 is a hole of `length` zeros (offset 0)."""
    range_blocks: tuple[int, ...] = ()
    """Of a FILE with very many ranges: the blocks (in the table) that hold them instead of `ranges`."""
    created: Time = (0, 0)
    """Windows: time of creation."""
    reparse: bytes = b""
    """Windows: the data of a reparse point that is a name surrogate, tag included."""


def path_order(path: bytes) -> bytes:
    """A sort key: byte order of the result is the order of a tree (b"a/c" comes before b"a-b")."""
    return path.replace(b"/", b"\0")
