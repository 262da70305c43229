"""From plain blocks to stored packs: seal on all cores, pack, upload in parallel, journal.

V4: plain bytes enter here and only sealed blocks leave. Bounded memory: at most `max_in_flight` full packs wait for the
store, and whoever seals waits with them. An error of the store or the disk is kept and raised by the next call.

    plain block → seal (pool) → pack (one a domain) → journal → PUT (pool) → journal
                                                        ↓ every so often, and at the end
                                       bracket: list pages → index objects → lease object
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Self

from common.errors import AlreadyExists, StatewardError, StoreDenied
from common.ids import new_ulid
from common.vault import names
from common.vault.blocks import block_aad, fingerprint, seal
from common.vault.derive import DomainKeys
from common.vault.documents import NamedObject
from common.vault.index import Index, IndexRow, read_index, write_index
from common.vault.packs import ClosedPack, PackBuilder, PackedBlock, PackName
from common.vault.pages import PackRef, Page, pages_of_packs
from common.vault.reading import expect_sha256, is_proven, read_matching
from common.vault.store import Buffer, Store
from common.vault.tree import Place
from worker.blockcache import BlockCache
from worker.known import KnownBlocks
from worker.runlog import Journal, JournalPack, JournalStored

BRACKET_PACKS = 256
"""So many packs (some 4 GiB) are stored before a bracket names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How blocks are made in this vault by this host."""

    vault_id: str
    host_id: str
    domains: Mapping[str, DomainKeys]
    codec: str
    level: int


@dataclass(slots=True)
class UploadCounts:
    """What this run has done so far, in bytes; for progress and for the head."""

    new_bytes: int = 0
    sealed_bytes: int = 0
    stored_bytes: int = 0
    packs: int = 0


def place_of(block: PackedBlock) -> Place:
    """Where a block lies, once its pack has a name."""
    return Place(block.pack.host, block.pack.sha256, block.offset, block.length, block.plain_size, block.id, block.key)


class Uploader:
    """Use it in a `with`: leaving ends its threads. One thread drives it; `seal` hands work to others."""

    def __init__(
        self,
        *,
        sealing: Sealing,
        store: Store,
        known: KnownBlocks,
        cache: BlockCache,
        journal: Journal,
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
        cores: int,
        max_in_flight: int,
    ) -> None:
        self.counts = UploadCounts()
        self._sealing = sealing
        self._aad = block_aad(sealing.vault_id)
        self._store = store
        self._known = known
        self._cache = cache
        self._journal = journal
        self._random_bytes = random_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._builders = {
            domain: PackBuilder(host=sealing.host_id, domain_id=domain, random_bytes=random_bytes)
            for domain in sealing.domains
        }
        self._unlisted: list[JournalPack] = []
        self._error: BaseException | None = None
        self._uploading: set[Future[None]] = set()
        self._room = threading.BoundedSemaphore(max_in_flight)
        self._sealers = ThreadPoolExecutor(cores, "seal")
        self._uploaders = ThreadPoolExecutor(max_in_flight, "upload")
        self._reuse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._error = self._error or StatewardError("The upload has ended.")
        self._sealers.shutdown(wait=True, cancel_futures=True)
        self._uploaders.shutdown(wait=True, cancel_futures=True)

    def seal(self, plain: Buffer, domain_id: str) -> Future[PackedBlock]:
        """Seal a block in another thread. `plain` must not change until the future is done.

        Raises what an earlier upload failed with.
        """
        self.raise_error()
        return self._sealers.submit(self._seal, plain, domain_id)

    def find(self, block_id: bytes) -> PackName | None:
        """The pack of a known block."""
        with self._lock:
            found = self._known.find(block_id)
        return None if found is None else found[0]

    def close_pack(self, domain_id: str | None = None) -> None:
        """Send packs on their way though they are not full: of one domain or of all."""
        with self._lock:
            builders = [self._builders[domain_id]] if domain_id else list(self._builders.values())
            closed = [pack for pack in (builder.close() for builder in builders) if pack is not None]
        for pack in closed:
            self._send(pack)

    def drain(self) -> None:
        """Close all packs and wait until the store has them. All sealing must be done."""
        self.close_pack()
        with self._lock:
            uploading = list(self._uploading)
        wait(uploading)
        self.raise_error()

    @property
    def bracket_due(self) -> bool:
        with self._lock:
            return len(self._unlisted) >= BRACKET_PACKS

    def bracket(self) -> tuple[list[Page], list[tuple[NamedObject, Index]]]:
        """Name what was stored since the last bracket: write list pages, then index objects. The lease that names them
        is the caller's to write. Empty when there was nothing new."""
        with self._lock:
            packs, self._unlisted = self._unlisted, []
        refs = [PackRef(pack.host, pack.sha256, pack.size) for pack in packs]
        pages = pages_of_packs(self._sealing.host_id, refs, self._random_bytes)
        for page in pages:
            self._store.put(page.key, page.data)
        indexes = []
        for domain in sorted({pack.domain for pack in packs}):
            rows = [
                IndexRow(block_id, pack.sha256, pack.size, offset, length)
                for pack in packs
                if pack.domain == domain
                for block_id, offset, length in pack.rows
            ]
            named, index = self.write_index(rows, domain)
            with self._lock:
                self._known.settle(
                    index,
                    (
                        PackName(pack.host, pack.sha256, pack.size, stored=True)
                        for pack in packs
                        if pack.domain == domain
                    ),
                )
            indexes.append((named, index))
        return pages, indexes

    def write_index(self, rows: list[IndexRow], domain_id: str) -> tuple[NamedObject, Index]:
        """Store an index object of these rows."""
        keys = self._sealing.domains[domain_id]
        key = names.index(self._sealing.host_id, new_ulid())
        data = write_index(
            rows,
            host=self._sealing.host_id,
            object_key=key,
            keys=keys,
            codec=self._sealing.codec,
            random_bytes=self._random_bytes,
        )
        named = Page(key, data).named
        self._store.put(key, data, sha256=named.sha256)
        return named, read_index(data, object_key=key, keys=keys)

    def raise_error(self) -> None:
        """Raise what ended an upload, in the thread that drives."""
        if self._error is not None:
            raise self._error

    def _seal(self, plain: Buffer, domain_id: str) -> PackedBlock:
        self.raise_error()
        keys = self._sealing.domains[domain_id]
        print_ = fingerprint(plain, keys)
        hit = self._cache.find(keys, print_)
        if hit is not None:
            with self._lock:
                found = self._known.find(hit[0])
            if found is not None:
                return PackedBlock(hit[0], hit[1], *found, len(plain))
        sealed = seal(plain, keys, aad=self._aad, level=self._sealing.level)
        full = None
        with self._lock:
            found = self._known.find(sealed.id)
            if found is not None and found[2] != len(sealed.data):
                found = None  # whoever wrote that index lies: this block is sent
            if found is None:
                builder = self._builders[domain_id]
                block = builder.add(sealed)
                self._known.add(sealed.id, block.pack, block.offset, block.length)
                self.counts.new_bytes += len(plain)
                self.counts.sealed_bytes += block.length
                if builder.full:
                    full = builder.close()
            else:
                block = PackedBlock(sealed.id, sealed.key, *found, len(plain))
        self._cache.put(keys, print_, sealed.id, sealed.key)
        if full is not None:
            self._send(full)
        return block

    def _send(self, pack: ClosedPack) -> None:
        """Wait for room, then upload in another thread."""
        self._room.acquire()
        try:
            upload = self._uploaders.submit(self._upload, pack)
        except RuntimeError:  # ended meanwhile
            self._room.release()
            return
        with self._lock:
            self._uploading.add(upload)
        upload.add_done_callback(self._sent)

    def _sent(self, upload: Future[None]) -> None:
        with self._lock:
            self._uploading.discard(upload)
        self._room.release()

    def _upload(self, pack: ClosedPack) -> None:
        try:
            self.raise_error()
            sha256 = pack.give_name()
            key = names.pack(pack.name.host, sha256)
            record = JournalPack(
                pack.name.host,
                pack.domain_id,
                sha256,
                pack.name.size,
                [(block.id, block.offset, block.length) for block in pack.blocks],
                self._clock(),
            )
            with self._lock:
                self._journal.append(record)
            try:
                self._store.put(key, pack.data, sha256=sha256)
            except AlreadyExists:
                # 32 random bytes: only a PUT of ours can have used this name; make sure of the bytes
                read_matching(self._store, key, expect_sha256(key, sha256))
            with self._lock:
                self._journal.append(JournalStored(sha256))
                self._unlisted.append(record)
                pack.name.stored = True
                self.counts.stored_bytes += pack.name.size
                self.counts.packs += 1
        except BaseException as error:  # noqa: BLE001  # raised again by the driving thread
            self._error = self._error or error

    def _reuse(self) -> None:
        """Take over what an earlier attempt of this job stored."""
        for record in self._journal.unsure:
            if self._is_stored(record):
                self._journal.append(JournalStored(record.sha256))
                self._journal.packs.append(record)
        for record in self._journal.packs:
            if record.domain not in self._sealing.domains:
                continue
            pack = PackName(record.host, record.sha256, record.size, stored=True)
            for block_id, offset, length in record.rows:
                self._known.add(block_id, pack, offset, length)
            self._unlisted.append(record)

    def _is_stored(self, record: JournalPack) -> bool:
        """Whether a PUT whose answer was never seen took effect. A store says "denied" of what is not there to a caller
        who may not list."""
        try:
            return is_proven(self._store, names.pack(record.host, record.sha256), record.sha256, record.size)
        except StoreDenied:
            return False


class BufferPool:
    """A fixed number of buffers; a buffer comes back when the last block cut from it is sealed."""

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(bytearray(size))

    def take(self) -> PooledBuffer:
        """Waits until one is free."""
        return PooledBuffer(self._free.get(), self._free.put)


class PooledBuffer:
    """Counts who still needs it: its taker, and each block handed out."""

    def __init__(self, data: bytearray, give_back: Callable[[bytearray], None]) -> None:
        self.view = memoryview(data)
        self._data = data
        self._give_back = give_back
        self._holders = 1
        self._lock = threading.Lock()

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def release(self, _done: object = None) -> None:
        with self._lock:
            self._holders -= 1
            free = self._holders == 0
        if free:
            self._give_back(self._data)
