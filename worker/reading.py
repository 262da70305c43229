"""Reading one source file: opened once, read in order, and asked at the end whether it held still."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from blake3 import blake3

from worker.platform.api import OpenFile, SourceFile, SourceFiles, SourceUnreadable
from worker.platform.reasons import CHANGED, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SourceUnreadable", "content_digest", "describe_again", "open_source", "pieces"]

_PIECE_BYTES = 1 << 20
_ZEROS = bytes(_PIECE_BYTES)


@contextmanager
def open_source(files: SourceFiles, source: SourceFile) -> Iterator[OpenFile]:
    """The file, open; closed on every way out.

    Raises:
        SourceUnreadable: not that regular file any more, or not readable.
    """
    handle = files.open(source)
    try:
        yield handle
    finally:
        handle.close()


def describe_again(files: SourceFiles, source: SourceFile) -> SourceFile:
    """The same path as it is now: what to open for a second attempt at a file that changed or was replaced.

    Raises:
        SourceUnreadable: it is gone or is no regular file any more.
    """
    try:
        entry = files.describe(source.real, source.entry.path, lambda _path, _reason: None)
    except OSError as error:
        raise SourceUnreadable(source.entry.path, in_words(error)) from error
    if entry.kind != source.entry.kind:
        raise SourceUnreadable(source.entry.path, CHANGED)
    return SourceFile(entry=entry, real=source.real)


def pieces(handle: OpenFile, *, piece_bytes: int = _PIECE_BYTES) -> Iterator[tuple[int, int, memoryview | None]]:
    """The content in order as (offset, length, data), data None for a hole; together exactly `entry.size` bytes.

    A view is valid until the next one is asked for.

    Raises:
        SourceUnreadable: an error, or the file became shorter while it was read.
    """
    buffer = memoryview(bytearray(min(piece_bytes, max(handle.entry.size, 1))))
    position = 0
    for start, length in handle.extents():
        if start > position:
            yield position, start - position, None
        position = start
        while position < start + length:
            wanted = min(len(buffer), start + length - position)
            if handle.read_into(buffer[:wanted], position) < wanted:
                raise SourceUnreadable(handle.entry.path, CHANGED)
            yield position, wanted, buffer[:wanted]
            position += wanted
    if position < handle.entry.size:
        yield position, handle.entry.size - position, None


def content_digest(handle: OpenFile) -> bytes:
    """BLAKE3 of the content, holes as zeros: what an entry's `digest` says."""
    hasher = blake3()
    for _, length, data in pieces(handle):
        if data is not None:
            hasher.update(data)
            continue
        left = length
        while left > 0:
            hasher.update(_ZEROS[: min(left, len(_ZEROS))])
            left -= len(_ZEROS)
    return hasher.digest()
