"""A backup, from the machine's files to a recovery point: the front door of the worker.

Invariants kept here (`docs/vault-format.md`): V2, the point is written last and is the only commit point. Write order:
lease → (packs → lists → index → lease)… → packs of the tree → lists → index → lease → point. A crash after any step
leaves only objects that no point names; the same job, run again, re-uses them by its journal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from common.contracts.jobs import BackupSpec, JobReport, PreviousPoint, Progress, Stage
from common.errors import AlreadyExists, Damaged, PrecheckFailed
from common.vault import names
from common.vault.documents import Chunking, NamedObject
from common.vault.points import Head, StoredPoint, index_name, write_point
from common.vault.reading import expect_sha256, read_matching
from common.vault.store import Store
from common.vault.tree import Place, write_root
from worker.blockcache import BlockCache
from worker.estimate import Estimate
from worker.excludes import Excludes
from worker.known import KnownBlocks, ObjectCache, load_known
from worker.leasing import LeaseLog
from worker.naming import Named, name_everything
from worker.pinned import PinnedVault, pinned_binding, vault_folder
from worker.platform.api import Host, SnapshotMode, SourceFile, SourceRoot
from worker.reporting import Reporter
from worker.runlog import Journal, JournalPoint
from worker.scan import scan
from worker.secrets_by_name import is_secret_by_name
from worker.treefile import PreviousTree, TreeFile
from worker.treewriter import TreeWriter
from worker.upload import Sealing, Uploader, place_of

_TREE_CACHE = "files.cache"
_JOURNAL = "journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """One attempt of one job: from a lease, or made by a standalone run."""

    spec: BackupSpec
    job: str
    attempt: int
    epoch: int
    fence: int
    point: str
    seq: int
    prev: PreviousPoint | None = None
    lists: tuple[NamedObject, ...] = ()
    indexes: tuple[NamedObject, ...] = ()
    codec: str = ""
    chunking: Chunking = field(default_factory=Chunking)
    reread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupDeps:
    """What a backup needs from its process. Everything is passed in: store, machine, clock, chance."""

    store: Store
    host: Host
    pinned: PinnedVault
    state: Path
    """The worker's state folder."""
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    progress: Callable[[Progress], None]
    cancelled: Callable[[], None]
    """Raises Cancelled when the job was cancelled; called often."""
    before_commit: Callable[[], None]
    """Renews the lease once more; raises LeaseLost where this attempt may not commit."""
    excludes: tuple[Path, ...] = ()
    """The worker's own folders, and a local vault."""
    cores: int = 2
    stage: Callable[[Stage], None] = field(default=lambda _stage: None)


def run_backup(request: BackupRequest, deps: BackupDeps) -> JobReport:
    """Back up once. The prechecks are done; running it again after any error is safe.

    Raises:
        SnapshotFailed: nothing was uploaded.
        StoreUnavailable, StoreDenied: packs may be stored, no point names them.
        LeaseLost, Cancelled: the same.
        PrecheckFailed: nothing of what was asked for exists.
    """
    reporter = Reporter(deps.progress, deps.monotonic)
    folder = vault_folder(deps.state, deps.pinned.vault_id)
    journal = Journal.open(
        folder / _JOURNAL, job=request.job, vault=deps.pinned.vault_id, clock=lambda: deps.clock().timestamp()
    )
    if journal.point is not None:
        done = _finish_earlier(request, deps, journal)
        if done is not None:
            return done
    sealing = deps.pinned.sealing(request.codec)
    objects = ObjectCache(folder / "objects")
    known, pages, indexes = load_known(
        deps.store, objects, lists=request.lists, indexes=request.indexes, domains=sealing.domains
    )
    leases = LeaseLog(request, deps)
    leases.write()
    binding = pinned_binding(deps.pinned, sealing.codec)
    with contextlib.ExitStack() as cleanup:
        cache = BlockCache(folder, sealing.codec)
        cleanup.callback(cache.close)
        tree_file = TreeFile(folder / "files.new", binding=binding)
        cleanup.callback(tree_file.discard)
        reporter.enter(Stage.SNAPSHOTTING)
        roots = _roots(request.spec, deps, folder, reporter)
        snapshot = cleanup.enter_context(deps.host.volume_snapshot(roots, SnapshotMode.PREFER))
        reporter.enter(Stage.UPLOADING)
        uploader = cleanup.enter_context(_uploader(request, deps, sealing, known, cache, journal))
        excludes = Excludes((*request.spec.excludes, *(str(path) for path in deps.excludes)))
        estimate = Estimate(folder, reporter, roots=snapshot.roots, files=deps.host.files, excludes=excludes)
        cleanup.enter_context(estimate)

        def pause() -> None:
            deps.cancelled()
            if uploader.bracket_due or leases.due:
                leases.bracket(uploader)

        writer = TreeWriter(
            files=deps.host.files,
            uploader=uploader,
            sealing=sealing,
            host_domain=deps.pinned.host_id,
            chunking=request.chunking,
            previous=PreviousTree(folder / _TREE_CACHE, binding=binding),
            reread=request.reread,
            tree_file=tree_file,
            reporter=reporter,
            pause=pause,
        )
        for source in scan(snapshot.roots, files=deps.host.files, warn=reporter.warn, excludes=excludes):
            writer.add(source, _domain_of(source, deps.pinned))
        writer.finish()
        leases.bracket(uploader)
        reporter.enter(Stage.COMMITTING)
        root = _seal_tree(tree_file, uploader, deps, writer.used)
        leases.bracket(uploader)
        named = name_everything(
            deps.pinned.host_id,
            used=writer.used,
            pages=[*pages, *leases.pages],
            indexes=[*indexes, *leases.indexes],
            uploader=uploader,
            store=deps.store,
            random_bytes=deps.random_bytes,
        )
        leases.write(named)
        report = reporter.result().model_copy(
            update={"consistency": snapshot.consistency, "logical_bytes": writer.logical_bytes}
        )
        head = _head(request, deps, report, named, sealing.codec)
        _commit(head, root, report, request, deps, journal)
        tree_file.keep(folder / _TREE_CACHE)
        estimate.keep(report.logical_bytes)
        objects.only([*named.all_lists, *named.all_indexes])
    journal.finish()
    return report


def _commit(
    head: Head, root: bytes, report: JobReport, request: BackupRequest, deps: BackupDeps, journal: Journal
) -> None:
    """Journal the finished point, ask once more, and write it: after this the backup exists, before it it does not."""
    raw = write_point(head, root, recovery_public=deps.pinned.recovery_public, signer=deps.pinned.signing_key)
    deps.cancelled()
    journal.append(JournalPoint(request.point, request.epoch, request.fence, raw, report.model_dump_json().encode()))
    deps.before_commit()
    _put_point(deps.store, head.key, raw)


def _uploader(
    request: BackupRequest,
    deps: BackupDeps,
    sealing: Sealing,
    known: KnownBlocks,
    cache: BlockCache,
    journal: Journal,
) -> Uploader:
    return Uploader(
        sealing=sealing,
        store=deps.store,
        known=known,
        cache=cache,
        journal=journal,
        random_bytes=deps.random_bytes,
        clock=lambda: deps.clock().timestamp(),
        cores=deps.cores,
        max_in_flight=request.spec.max_in_flight,
    )


def _finish_earlier(request: BackupRequest, deps: BackupDeps, journal: Journal) -> JobReport | None:
    """The finished point of an earlier attempt: it stands, or it is put now if the lease is still the same."""
    point = journal.point
    if point is None or point.point != request.point:
        return None
    key = names.point(deps.pinned.host_id, request.point)
    stored = StoredPoint.parse(point.raw)
    report = JobReport.model_validate_json(point.report)
    with contextlib.suppress(Damaged):
        read_matching(deps.store, key, expect_sha256(key, stored.sha256))
        journal.finish()
        return report
    if (point.epoch, point.fence) != (request.epoch, request.fence):
        return None
    deps.before_commit()
    _put_point(deps.store, key, point.raw)
    journal.finish()
    return report


def _put_point(store: Store, key: str, raw: bytes) -> None:
    """The commit point. Under the key may already be these bytes: the answer to an earlier PUT was lost."""
    try:
        store.put(key, raw)
    except AlreadyExists:
        read_matching(store, key, expect_sha256(key, StoredPoint.parse(raw).sha256))


def _roots(spec: BackupSpec, deps: BackupDeps, folder: Path, reporter: Reporter) -> list[SourceRoot]:
    roots = [deps.host.source_root(Path(path)) for path in spec.paths]
    if spec.system_state:
        state = deps.host.system_state(folder / "system-state")
        roots += state.roots
        for name, reason in state.warnings:
            reporter.warn(name.encode(), reason)
    if not roots:
        raise PrecheckFailed(
            "There is nothing to back up.", next_step="Name paths, or ask for the system state with --system-state."
        )
    return roots


def _domain_of(source: SourceFile, pinned: PinnedVault) -> str:
    """Secrets by name are sealed so that no other host can confirm a guess."""
    return pinned.host_id if is_secret_by_name(source.entry.path) else pinned.content_domain


def _seal_tree(tree_file: TreeFile, uploader: Uploader, deps: BackupDeps, used: dict[tuple[str, bytes], int]) -> bytes:
    """Seal the tree's blocks and give the root that names them."""
    blocks = []
    for record in tree_file.tree_blocks():
        deps.cancelled()
        blocks.append((uploader.seal(record.plain, deps.pinned.host_id), record.first_path))
    sealed = [(future.result(), first_path) for future, first_path in blocks]
    uploader.drain()
    placed: list[tuple[Place, bytes]] = []
    for block, first_path in sealed:
        used[block.pack.host, block.pack.sha256] = block.pack.size
        placed.append((place_of(block), first_path))
    return write_root(placed)


def _shortened(text: str, size: int) -> str:
    """At most so many bytes: a head has 4 KiB in all."""
    return text.encode()[:size].decode(errors="ignore")


def _head(request: BackupRequest, deps: BackupDeps, report: JobReport, named: Named, codec: str) -> Head:
    parts = ["system-state"] * request.spec.system_state + ["files"] * bool(request.spec.paths)
    prev = request.prev
    return Head(
        vault=deps.pinned.vault_id,
        host=deps.pinned.host_id,
        point=request.point,
        seq=request.seq,
        prev_point="" if prev is None else prev.point,
        prev_sha256=b"" if prev is None else bytes.fromhex(prev.sha256),
        job=request.job,
        attempt=request.attempt,
        epoch=request.epoch,
        fence=request.fence,
        source="+".join(parts),
        created=deps.clock().isoformat(),
        domain=deps.pinned.content_domain,
        codec=codec,
        key_id=deps.pinned.key_id,
        config_seq=deps.pinned.pin.config_seq,
        config_sha256=deps.pinned.pin.config_sha256,
        lists=tuple(each.sha256 for each in named.lists),
        lists_root=named.lists_root,
        indexes=tuple(index_name(each) for each in named.indexes),
        indexes_root=named.indexes_root,
        files=report.files,
        logical_bytes=report.logical_bytes,
        new_bytes=report.new_bytes,
        stored_bytes=report.stored_bytes,
        packs=report.packs,
        os_build=_shortened(deps.host.facts().os_build, 128),
        consistency=_shortened(report.consistency, 512),
        warnings=report.warnings_count,
    )
