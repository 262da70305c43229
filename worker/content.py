"""From source files to blocks: small files joined to bundles, long ones cut in segments.

Content is read into a few pooled buffers and never copied: blocks are views into them, and a buffer is read into again
when its last block is sealed. A file that changes while it is read is read once more; if it changes again that is a
warning, and what was read is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import msgspec
from blake3 import blake3

from common.vault.cut import Cutter
from common.vault.derive import DomainKeys
from common.vault.documents import Chunking
from common.vault.entry import Entry
from common.vault.packs import PackedBlock
from common.vault.tree import Piece
from worker.platform.api import OpenFile, SourceFile, SourceFiles, SourceUnreadable, Warn
from worker.platform.reasons import CHANGED
from worker.reading import describe_again, open_source
from worker.upload import BufferPool, PooledBuffer, Uploader, place_of

BUFFER_SIZE = 8 * 1024 * 1024
BUFFERS = 5
_ZEROS = memoryview(bytes(1024 * 1024))

Part = tuple[Future[PackedBlock] | None, int, int]
"""A block that is being made, offset in it, length; None is a hole."""


@dataclass(slots=True, eq=False)
class Content:
    """A file's content on its way: complete when nothing is waited for."""

    entry: Entry
    digest: bytes = b""
    parts: list[Part] = field(default_factory=list)
    known: list[Piece] | None = None
    """Set instead of `parts` for a file that did not change."""
    open: bool = False
    """Part of it waits in a bundle that is not cut yet."""
    first: Content | None = None
    """For another name of a file: where its content is."""

    def is_waiting(self) -> bool:
        """Whether something is not stored yet. Raises what sealing failed with."""
        body = self.first or self
        if body.open:
            return True
        return any(not future.done() or not future.result().pack.stored for future in body.futures())

    def futures(self) -> Iterator[Future[PackedBlock]]:
        body = self.first or self
        return (future for future, _, _ in body.parts if future is not None)

    def pieces(self) -> list[Piece]:
        """Only when nothing is waited for."""
        body = self.first or self
        if body.known is not None:
            return body.known
        return [
            Piece(None if future is None else place_of(future.result()), offset, length)
            for future, offset, length in body.parts
        ]

    def finished_entry(self) -> Entry:
        """The entry with what reading found out."""
        return msgspec.structs.replace(self.entry, digest=(self.first or self).digest)


class Reader:
    """Reads files and has their blocks sealed. One thread drives it."""

    def __init__(
        self,
        *,
        files: SourceFiles,
        uploader: Uploader,
        domains: Mapping[str, DomainKeys],
        chunking: Chunking,
        warn: Warn,
        progress: Callable[[int], None],
    ) -> None:
        """`progress` is told how many bytes of source were read."""
        self._files = files
        self._uploader = uploader
        self._chunking = chunking
        self._warn = warn
        self._progress = progress
        self._pool = BufferPool(BUFFERS, max(BUFFER_SIZE, 2 * chunking.max_size))
        self._cutters = {domain: Cutter(chunking, keys.gear_seed) for domain, keys in domains.items()}
        self._bundles: dict[str, _Bundle] = {}

    def read(self, source: SourceFile, domain_id: str) -> Content | None:
        """Content of a regular file; None when it could not be read, which has been said as a warning."""
        try:
            content, held_still = self._attempt(source, domain_id)
            if not held_still:
                source = describe_again(self._files, source)
                content, held_still = self._attempt(source, domain_id)
                if not held_still:
                    self._warn(source.entry.path, CHANGED)
        except SourceUnreadable as error:
            if error.reason != CHANGED:
                self._warn(source.entry.path, error.reason)
                return None
            return self._last_try(source, domain_id)
        return content

    def flush(self) -> None:
        """Cut what waits in bundles, so that every content read so far is on its way."""
        for domain, bundle in self._bundles.items():
            self._cut_bundle(domain, bundle, final=True)
            bundle.buffer.release()
        self._bundles.clear()

    def _last_try(self, source: SourceFile, domain_id: str) -> Content | None:
        """It became shorter while it was read: once more, from what it is now."""
        try:
            content, held_still = self._attempt(describe_again(self._files, source), domain_id)
        except SourceUnreadable as error:
            self._warn(source.entry.path, error.reason)
            return None
        if not held_still:
            self._warn(source.entry.path, CHANGED)
        return content

    def _attempt(self, source: SourceFile, domain_id: str) -> tuple[Content, bool]:
        with open_source(self._files, source) as handle:
            small = handle.entry.size <= self._chunking.bundle_limit
            content = self._small(handle, domain_id) if small else self._long(handle, domain_id)
            return content, not handle.changed()

    def _small(self, handle: OpenFile, domain_id: str) -> Content:
        """Join a file to the bundle of its domain."""
        size = handle.entry.size
        if size == 0:
            return Content(handle.entry, blake3(b"").digest())
        bundle = self._bundles.get(domain_id)
        if bundle is not None and bundle.used + size > self._pool.size:
            bundle = self._next_bundle(domain_id, bundle)
        if bundle is None:
            bundle = self._bundles[domain_id] = _Bundle(self._pool.take())
        target = bundle.buffer.view[bundle.used : bundle.used + size]
        if handle.read_into(target, 0) < size:
            raise SourceUnreadable(handle.entry.path, CHANGED)
        content = Content(handle.entry, blake3(target).digest(), open=True)
        bundle.files.append((bundle.used, bundle.used + size, content))
        bundle.used += size
        self._progress(size)
        return content

    def _next_bundle(self, domain_id: str, full: _Bundle) -> _Bundle:
        """Cut a full bundle; what is left of it goes on in the next buffer."""
        kept_from = self._cut_bundle(domain_id, full, final=False)
        rest = full.used - kept_from
        fresh = _Bundle(self._pool.take(), used=rest)
        fresh.buffer.view[:rest] = full.buffer.view[kept_from : full.used]
        fresh.files = [(start - kept_from, end - kept_from, each) for start, end, each in full.files if end > kept_from]
        full.buffer.release()
        self._bundles[domain_id] = fresh
        return fresh

    def _cut_bundle(self, domain_id: str, bundle: _Bundle, *, final: bool) -> int:
        """Seal the blocks of a bundle and tell its files; returns where the part that is not cut begins."""
        view = bundle.buffer.view[: bundle.used]
        waiting = iter(bundle.files)
        file = next(waiting, None)
        done = 0
        for offset, length in self._cutters[domain_id].cut(view, final=final):
            future = self._seal(bundle.buffer, view[offset : offset + length], domain_id)
            done = offset + length
            while file is not None and file[0] < done:
                start, end, content = file
                first = max(start, offset)
                content.parts.append((future, first - offset, min(end, done) - first))
                if end > done:
                    break
                content.open = False
                file = next(waiting, None)
        return done

    def _long(self, handle: OpenFile, domain_id: str) -> Content:
        """Cut a long file segment by segment, hole by hole."""
        content = Content(handle.entry)
        hasher = blake3()
        position = 0
        for start, length in _segments(handle.extents(), self._chunking.segment_size):
            if start > position:
                _hole(content, hasher, start - position)
                self._progress(start - position)
            self._segment(handle, start, length, domain_id, content, hasher)
            position = start + length
        if position < handle.entry.size:
            _hole(content, hasher, handle.entry.size - position)
            self._progress(handle.entry.size - position)
        content.digest = hasher.digest()
        return content

    def _segment(
        self, handle: OpenFile, start: int, length: int, domain_id: str, content: Content, hasher: blake3
    ) -> None:
        cutter = self._cutters[domain_id]
        buffer = self._pool.take()
        kept = 0
        left = length
        try:
            while left:
                wanted = min(self._pool.size - kept, left)
                fresh = buffer.view[kept : kept + wanted]
                if handle.read_into(fresh, start + length - left) < wanted:
                    raise SourceUnreadable(handle.entry.path, CHANGED)
                hasher.update(fresh)
                left -= wanted
                filled = kept + wanted
                done = 0
                for offset, size in cutter.cut(buffer.view[:filled], final=left == 0):
                    future = self._seal(buffer, buffer.view[offset : offset + size], domain_id)
                    content.parts.append((future, 0, size))
                    done = offset + size
                self._progress(wanted)
                kept = filled - done
                if left:
                    following = self._pool.take()
                    following.view[:kept] = buffer.view[done:filled]
                    buffer.release()
                    buffer = following
        finally:
            buffer.release()

    def _seal(self, buffer: PooledBuffer, plain: memoryview, domain_id: str) -> Future[PackedBlock]:
        buffer.hold()
        try:
            future = self._uploader.seal(plain, domain_id)
        except BaseException:
            buffer.release()
            raise
        future.add_done_callback(buffer.release)
        return future


@dataclass(slots=True)
class _Bundle:
    """Small files of one domain, back to back in a buffer, with their (start, end)."""

    buffer: PooledBuffer
    used: int = 0
    files: list[tuple[int, int, Content]] = field(default_factory=list)


def _segments(extents: Iterator[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Extents cut at multiples of the segment size, so that a segment is cut the same whatever comes before it."""
    for start, length in extents:
        at = start
        while at < start + length:
            end = min(start + length, (at // size + 1) * size)
            yield at, end - at
            at = end


def _hole(content: Content, hasher: blake3, length: int) -> None:
    content.parts.append((None, 0, length))
    while length > 0:
        part = min(length, len(_ZEROS))
        hasher.update(_ZEROS[:part])
        length -= part
