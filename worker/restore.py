"""A restore, from a point's opened root to files in a folder: the twin of `worker.backup`.

Tree blocks are read one after the other; the blocks that files need are fetched ahead, in batches, while the batch before
is written. A missing or corrupt pack fails the files that need it, by name, and nothing else. Nothing in a tree can write
outside the folder (`worker.target`). Every file is compared with its size and BLAKE3 before it gets its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from common.contracts.jobs import JobReport, PathReason, Progress, Stage
from common.errors import Damaged
from common.vault.entry import Entry, Kind
from common.vault.store import Store
from common.vault.tree import Piece, Root, TreeBlock, read_range_block, read_root, read_tree_block
from worker.excludes import Excludes
from worker.fetch import Fetched, Fetcher
from worker.platform.api import Host
from worker.reporting import MAX_LISTED, Reporter, shown
from worker.target import Conflict, FileWriter, Target

BATCH_BYTES = 32 * 1024 * 1024
BATCH_FILES = 4096
_ZEROS = bytes(1024 * 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """What to restore and where. `root` is the point's root in clear, from the passphrase or a grant."""

    vault_id: str
    root: bytes
    destination: Path
    conflict: Conflict = Conflict.REFUSE
    includes: tuple[str, ...] = ()
    """Globs of tree paths; empty means everything."""
    expected_bytes: int = 0
    """Bytes of content to come, for the space check and for progress; 0 when not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreDeps:
    store: Store
    host: Host
    monotonic: Callable[[], float]
    progress: Callable[[Progress], None]
    cancelled: Callable[[], None]
    """Raises Cancelled; called often."""
    parallel: int = 8


def run_restore(request: RestoreRequest, deps: RestoreDeps) -> JobReport:
    """Restore once. What could not be restored is in the report's `failed`, by path and reason.

    Raises:
        TargetNotEmpty, TargetNotWritable, NoSpace: before anything was written (NoSpace also later).
        Damaged: the root cannot be read.
        StoreUnavailable, StoreDenied, Cancelled: files that have their names are whole.
    """
    reporter = Reporter(deps.progress, deps.monotonic)
    reporter.bytes_total = request.expected_bytes
    reporter.enter(Stage.RESTORING)
    root = read_root(request.root)
    with (
        Target(deps.host, request.destination, conflict=request.conflict) as target,
        Fetcher(deps.store, vault_id=request.vault_id, parallel=deps.parallel, cancelled=deps.cancelled) as fetcher,
    ):
        target.preflight(0 if request.includes else request.expected_bytes)
        entries = read_entries(root, fetcher, request.includes, target.fail)
        run = _Run(target, fetcher, reporter, deps.cancelled)
        try:
            for entry, pieces in entries:
                deps.cancelled()
                run.take(entry, pieces)
            run.finish()
        finally:
            run.discard()
        outcome = target.finish()
    failed = outcome.failed
    report = reporter.result()
    return report.model_copy(
        update={
            "files": outcome.files,
            "logical_bytes": reporter.bytes,
            "destination": str(request.destination),
            "failed_count": len(failed),
            "failed": tuple(PathReason(path=shown(path), reason=reason) for path, reason in failed[:MAX_LISTED]),
            "warnings": tuple(
                PathReason(path="", reason=f"{note} ({count} times)") for note, count in sorted(outcome.notes.items())
            ),
        }
    )


def read_entries(
    root: Root, fetcher: Fetcher, includes: tuple[str, ...], fail: Callable[[bytes, str], None]
) -> Iterator[tuple[Entry, list[Piece]]]:
    """Entries of a tree in order with their content, those that match `includes` and the folders above them.

    A block of the tree that cannot be read is reported to `fail` with the first path in it, a file whose list of ranges
    cannot be read by its own; the walk goes on.
    """

    def with_pieces(block: TreeBlock, entry: Entry) -> Iterator[tuple[Entry, list[Piece]]]:
        try:
            pieces = _pieces(block, entry, fetcher)
        except Damaged as error:
            fail(entry.path, error.message)
            return
        yield entry, pieces

    wanted = Excludes(includes) if includes else None
    waiting: list[Entry] = []
    for number, row in enumerate(root.blocks):
        try:
            block = read_tree_block(fetcher.one(row.place))
            for entry in block.entries():
                if wanted is None:
                    yield from with_pieces(block, entry)
                    continue
                waiting = [above for above in waiting if entry.path.startswith(above.path + b"/")]
                if _matches(wanted, entry.path):
                    yield from ((above, []) for above in waiting)
                    waiting = []
                    yield from with_pieces(block, entry)
                elif entry.kind == Kind.DIRECTORY:
                    waiting.append(entry)
        except Damaged as error:
            following = root.blocks[number + 1].first_path if number + 1 < len(root.blocks) else b""
            until = f" up to {shown(following)}" if following else " to the end"
            fail(row.first_path, f"the list of files from here{until} cannot be read: {error.message}")


def _matches(wanted: Excludes, path: bytes) -> bool:
    """Whether a path, or a folder above it, is asked for."""
    parts = path.split(b"/")
    return any(wanted.match(b"/".join(parts[:depth])) for depth in range(1, len(parts) + 1))


def _pieces(block: TreeBlock, entry: Entry, fetcher: Fetcher) -> list[Piece]:
    if not entry.range_blocks:
        return list(block.pieces(entry))
    return [piece for place in block.range_places(entry) for piece in read_range_block(fetcher.one(place))]


@dataclass(slots=True, eq=False)
class _File:
    """A file that is being restored."""

    writer: FileWriter
    entry: Entry
    hasher: blake3 = field(default_factory=blake3)
    position: int = 0
    problem: str = ""
    ended: bool = False


@dataclass(slots=True)
class _Batch:
    """Pieces in order; `last` ends a file."""

    pieces: list[tuple[_File, Piece | None]] = field(default_factory=list)
    size: int = 0
    collect: Callable[[], dict[bytes, Fetched]] | None = None


class _Run:
    """Files on their way: one batch is being fetched while the one before is written."""

    def __init__(self, target: Target, fetcher: Fetcher, reporter: Reporter, cancelled: Callable[[], None]) -> None:
        self._target = target
        self._fetcher = fetcher
        self._reporter = reporter
        self._cancelled = cancelled
        self._batch = _Batch()
        self._fetching: _Batch | None = None
        self._open: dict[int, _File] = {}
        self._have: dict[bytes, Fetched] = {}
        self._first_names: dict[tuple[int, int], bytes] = {}
        self._links: list[tuple[Entry, bytes, list[Piece]]] = []

    def take(self, entry: Entry, pieces: list[Piece]) -> None:
        """Restore an entry; its content follows with its batch."""
        if entry.kind == Kind.DIRECTORY:
            self._target.directory(entry)
        elif entry.kind == Kind.FILE:
            self._take_file(entry, pieces)
        else:
            self._target.node(entry)

    def finish(self) -> None:
        """Write what is left, then the further names of files."""
        self._turn()
        self._turn()
        for entry, first, pieces in self._links:
            if not self._target.hard_link(entry, first):
                self._start(entry, pieces)
        self._links = []
        self._turn()
        self._turn()

    def discard(self) -> None:
        """Remove what is not finished: after an error nothing half-done is left."""
        for file in list(self._open.values()):
            file.writer.abort("the restore ended before it was complete")
        self._open.clear()

    def _take_file(self, entry: Entry, pieces: list[Piece]) -> None:
        if entry.links > 1:
            identity = (entry.device, entry.inode)
            first = self._first_names.setdefault(identity, entry.path)
            if first != entry.path:
                self._links.append((entry, first, pieces))
                return
        self._start(entry, pieces)

    def _start(self, entry: Entry, pieces: list[Piece]) -> None:
        writer = self._target.file(entry)
        if writer is None:
            self._reporter.advance(entry.size)
            return
        file = _File(writer, entry)
        self._open[id(file)] = file
        for piece in pieces:
            self._batch.pieces.append((file, piece))
            self._batch.size += 0 if piece.place is None else piece.place.plain_size
            if self._batch.size >= BATCH_BYTES:
                self._turn()
        self._batch.pieces.append((file, None))
        if len(self._batch.pieces) >= BATCH_FILES:
            self._turn()

    def _turn(self) -> None:
        """Begin to fetch the batch that was filled, and write the one that was fetched meanwhile."""
        filled, self._batch = self._batch, _Batch()
        fetched, self._fetching = self._fetching, filled
        places = {piece.place.id: piece.place for _, piece in filled.pieces if piece and piece.place}
        filled.collect = self._fetcher.start(places.values())
        if fetched is not None:
            self._write(fetched)

    def _write(self, batch: _Batch) -> None:
        blocks = batch.collect() if batch.collect is not None else {}
        for file, piece in batch.pieces:
            if piece is None:
                self._end(file)
            elif not file.problem:
                self._write_piece(file, piece, blocks)
        self._cancelled()

    def _write_piece(self, file: _File, piece: Piece, blocks: dict[bytes, Fetched]) -> None:
        if piece.place is None:
            for start in range(0, piece.length, len(_ZEROS)):
                file.hasher.update(_ZEROS[: min(len(_ZEROS), piece.length - start)])
        else:
            plain = blocks[piece.place.id]
            if isinstance(plain, Damaged):
                file.problem = plain.message
                return
            data = memoryview(plain)[piece.offset : piece.offset + piece.length]
            file.hasher.update(data)
            try:
                file.writer.write_at(file.position, data)
            except OSError as error:
                file.problem = error.strerror or str(error)
                return
        file.position += piece.length
        self._reporter.advance(piece.length)

    def _end(self, file: _File) -> None:
        del self._open[id(file)]
        if not file.problem and (file.position != file.entry.size or file.hasher.digest() != file.entry.digest):
            file.problem = "its content does not have the size and checksum of its entry"
        if file.problem:
            file.writer.abort(file.problem)
        else:
            file.writer.commit()
            self._reporter.files += 1
