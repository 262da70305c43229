"""From source files, in tree order, to the tree: entries wait for their blocks and are written in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from common.vault.derive import DomainKeys
from common.vault.documents import Chunking
from common.vault.entry import Entry, Kind
from common.vault.packs import PackedBlock
from common.vault.tree import (
    INLINE_RANGES,
    RANGES_PER_BLOCK,
    Piece,
    Place,
    TreeBlockBuilder,
    write_range_block,
)
from worker.content import Content, Reader
from worker.platform.api import SourceFile, SourceFiles
from worker.reporting import Reporter
from worker.treefile import PreviousTree, TreeFile
from worker.upload import Sealing, Uploader, place_of

MAX_XATTRS = 512 * 1024
"""Bytes of extended attributes of one file."""
MAX_WAITING = 20_000
"""So many entries may wait for their blocks before packs are closed early: memory stays bounded."""


class TreeWriter:
    """One thread drives it: `add` each source file in order, `finish` once."""

    def __init__(
        self,
        *,
        files: SourceFiles,
        uploader: Uploader,
        sealing: Sealing,
        host_domain: str,
        chunking: Chunking,
        previous: PreviousTree,
        reread: bool,
        tree_file: TreeFile,
        reporter: Reporter,
        pause: Callable[[], None],
    ) -> None:
        """`reread` reads every file and takes nothing from `previous`, which then tells what changed unseen. `pause` is
        called every few megabytes, also inside a long file: it may raise, or write a bracket."""
        self.used: dict[tuple[str, bytes], int] = {}
        """Every pack that the tree's content needs: (host, SHA-256) → size."""
        self.logical_bytes = 0
        """Sizes of all files in the tree, holes included."""
        self._uploader = uploader
        self._host_domain = host_domain
        self._previous = previous
        self._reread = reread
        self._tree_file = tree_file
        self._reporter = reporter
        self._pause = pause
        self._reader = Reader(
            files=files,
            uploader=uploader,
            domains=sealing.domains,
            chunking=chunking,
            warn=reporter.warn,
            progress=self._read,
        )
        host_keys: DomainKeys = sealing.domains[host_domain]
        self._builder = TreeBlockBuilder(host_keys.gear)
        self._ended = False
        self._waiting: deque[Content] = deque()
        self._links: dict[tuple[int, int], tuple[Content, int]] = {}
        reporter.counts = uploader.counts

    def add(self, source: SourceFile, domain_id: str) -> None:
        """Take a file with its content. What cannot be read has been said as a warning and is left out."""
        self._pause()
        entry = source.entry
        content = Content(entry)
        if entry.kind == Kind.FILE:
            found = self._linked(entry) or self._unchanged(entry) or self._reader.read(source, domain_id)
            if found is None:
                return
            content = found
            if self._reread and content.first is None:
                self._report_unseen_change(content)
            self._remember_links(content)
        if entry.kind != Kind.DIRECTORY:
            self._reporter.files += 1
        self._waiting.append(content)
        self._write_ready()
        if len(self._waiting) > MAX_WAITING:
            self._push()

    def finish(self) -> None:
        """Wait for every block and write the rest of the tree. A tree without entries has one block, too: a point that
        names no pack is taken for one that has lost it."""
        self._reader.flush()
        self._settle()
        if not self._builder.empty or not self._ended:
            self._end_block()

    def _bounded(self, entry: Entry) -> Entry:
        """Without extended attributes so large that their block of the tree could not be sealed."""
        if sum(len(name) + len(value) for name, value in entry.xattrs) <= MAX_XATTRS:
            return entry
        self._reporter.warn(entry.path, f"its extended attributes are left out: more than {MAX_XATTRS:,} bytes")
        return msgspec.structs.replace(entry, xattrs=())

    def _read(self, size: int) -> None:
        self._reporter.advance(size)
        self._pause()

    def _linked(self, entry: Entry) -> Content | None:
        """Content of another name of the same file, read once."""
        if entry.links < 2:  # noqa: PLR2004  # one name is its own
            return None
        found = self._links.get((entry.device, entry.inode))
        if found is None or found[0].entry.mtime != entry.mtime or found[0].entry.size != entry.size:
            return None
        first, left = found
        if left <= 1:
            del self._links[entry.device, entry.inode]
        else:
            self._links[entry.device, entry.inode] = (first, left - 1)
        self._reporter.advance(entry.size)
        return Content(entry, first=first)

    def _report_unseen_change(self, content: Content) -> None:
        """A full re-read finds what size and times do not tell: a failing disk, or somebody who sets times back."""
        found = self._previous.find(content.entry.path)
        if found is not None and _looks_same(found[0], content.entry) and found[0].digest != content.digest:
            self._reporter.warn(content.entry.path, "its content changed while its size and times did not")

    def _remember_links(self, content: Content) -> None:
        entry = content.entry
        if entry.links > 1 and content.first is None:
            self._links[entry.device, entry.inode] = (content, entry.links - 1)

    def _unchanged(self, entry: Entry) -> Content | None:
        """Content of the last backup, when nothing says that the file changed and all its blocks are known."""
        found = None if self._reread else self._previous.find(entry.path)
        if found is None:
            return None
        before, pieces = found
        if not _looks_same(before, entry):
            return None
        used: dict[tuple[str, bytes], int] = {}
        for piece in pieces:
            if piece.place is None:
                continue
            pack = self._uploader.find(piece.place.id)
            if pack is None or not pack.stored or (pack.host, pack.sha256) != (piece.place.host, piece.place.pack):
                return None
            used[pack.host, pack.sha256] = pack.size
        self.used |= used
        self._reporter.advance(entry.size)
        return Content(entry, before.digest, known=pieces)

    def _write_ready(self) -> None:
        """Write entries from the front as long as their blocks are stored."""
        while self._waiting:
            content = self._waiting[0]
            if content.is_waiting():
                return
            self._waiting.popleft()
            pieces = content.pieces()
            for future in content.futures():
                pack = future.result().pack
                self.used[pack.host, pack.sha256] = pack.size
            spilled: list[Place] = []
            if len(pieces) > INLINE_RANGES:
                spilled = self._spill(pieces)
                pieces = []
            self.logical_bytes += content.entry.size
            if self._builder.add(self._bounded(content.finished_entry()), pieces, spilled):
                self._end_block()

    def _spill(self, pieces: list[Piece]) -> list[Place]:
        """Put a very long list of ranges into blocks of its own."""
        blocks: list[tuple[bytes, Future[PackedBlock]]] = []
        for start in range(0, len(pieces), RANGES_PER_BLOCK):
            plain = write_range_block(pieces[start : start + RANGES_PER_BLOCK])
            blocks.append((plain, self._uploader.seal(plain, self._host_domain)))
        sealed = [(plain, future.result()) for plain, future in blocks]
        if not all(block.pack.stored for _, block in sealed):
            self._uploader.drain()
        for plain, block in sealed:
            self._tree_file.add_range_block(plain, block.id)
            self.used[block.pack.host, block.pack.sha256] = block.pack.size
        return [place_of(block) for _, block in sealed]

    def _end_block(self) -> None:
        first_path = self._builder.first_path
        self._tree_file.add_tree_block(self._builder.finish(), first_path)
        self._ended = True

    def _push(self) -> None:
        """Too many entries wait: cut bundles, close packs, and wait for them."""
        self._reader.flush()
        self._settle()

    def _settle(self) -> None:
        """Wait until everything that was cut is stored, and write it."""
        for content in self._waiting:
            for future in content.futures():
                future.result()
        self._uploader.drain()
        self._write_ready()


def _looks_same(before: Entry, now: Entry) -> bool:
    return (before.size, before.mtime, before.ctime, before.inode) == (now.size, now.mtime, now.ctime, now.inode)
