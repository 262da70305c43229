"""Whether a committed job's point holds: its head is read back from the vault, judged, and the verdict signed there.

The catalogue row is written after the signed `state` object: losing SQL loses no decision.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.errors import Damaged, FormatTooNew, JobOver, NotTrusted, StatewardError
from common.jobstates import JobState
from common.signing import load_public_key
from common.telemetry import bound, get_logger
from common.vault import names
from common.vault.accept import Verdict, index_objects, judge, read_pages
from common.vault.documents import Decision, NamedObject
from common.vault.hosts import verdict_of, write_state
from common.vault.points import StoredPoint
from common.vault.reading import expect_sha256, read_matching
from common.vault.store import ObjectMissing, Store
from coordinator.hosts.models import Host
from coordinator.jobs.models import Job
from coordinator.jobs.states import advance
from coordinator.points.models import Point
from coordinator.service import Services
from coordinator.vaults.models import Vault

log = get_logger(__name__)

_REASON_CHARACTERS = 500


def judge_committed_job(services: Services, job_id: str) -> JobState | None:
    """From committed to its end; None when there is nothing to judge. May be repeated after a crash at any step.

    Raises:
        StoreUnavailable and its like: nothing was decided; try again.
    """
    with services.db.read() as session:
        job = session.get(Job, job_id)
        if job is None or job.state != JobState.COMMITTED.value or job.point is None:
            return None
        host, vault = session.get_one(Host, job.host_id), session.get_one(Vault, job.vault_id)
        prev = None if job.prev_point is None else session.get(Point, job.prev_point)
    with bound(job_id=job.id, host=host.id):
        store = services.storage.store(vault.url)
        verdict = _judge(store, vault, host, job, prev)
        if verdict.point is not None and verdict.decision is not None:
            _sign(services, store, vault, verdict.point, verdict.decision, verdict.reason)
        known = () if verdict.point is None else _known(store, verdict.point)
        with services.db.write() as session:
            state = _conclude(session, job_id, verdict, known, now=services.clock())
        log.info("point judged", point=job.point, verdict=str(verdict.decision or "refused"), reason=verdict.reason)
        return state


def adopt_existing_point(services: Services, job_id: str) -> bool:
    """Before another attempt: an earlier one may have written the allotted point. True when that commits the job.

    A point that does not hold keeps its key; the next attempt is allotted another one.
    """
    with services.db.read() as session:
        job = session.get(Job, job_id)
        if job is None or job.state != JobState.QUEUED.value or job.attempt == 0 or job.point is None:
            return False
        host, vault = session.get_one(Host, job.host_id), session.get_one(Vault, job.vault_id)
        prev = None if job.prev_point is None else session.get(Point, job.prev_point)
    store = services.storage.store(vault.url)
    if not point_is_there(store, host.id, job.point):
        return False
    verdict = _judge(store, vault, host, job, prev)
    with services.db.write() as session:
        row = session.get_one(Job, job_id)
        if row.state != JobState.QUEUED.value:
            return False
        if verdict.decision is None:
            row.point = None
            return False
        advance(row, JobState.COMMITTED, now=services.clock())
    services.points_committed.set()
    return True


def point_is_there(store: Store, host: str, point: str) -> bool:
    """Whether the allotted key holds any object."""
    try:
        store.head(names.point(host, point))
    except ObjectMissing:
        return False
    return True


def _judge(store: Store, vault: Vault, host: Host, job: Job, prev: Point | None) -> Verdict:
    verdict = judge(
        store,
        vault_id=vault.id,
        host=host.id,
        point_id=job.point or "",
        public=load_public_key(host.public_key),
        proven=_packs_of(store, prev),
        fence=(job.epoch, job.fence),
    )
    if verdict.point is not None and verdict.decision is not None:
        head = verdict.point.head
        expected = (job.id, job.seq, job.prev_point or "", job.prev_sha256 or "")
        if (head.job, head.seq, head.prev_point, head.prev_sha256.hex()) != expected:
            return Verdict(None, "It does not follow the point, or belong to the job, that its lease named.")
    return verdict


def _packs_of(store: Store, prev: Point | None) -> frozenset[bytes]:
    """Packs that the accepted point before already proved: no need to ask for their checksums again."""
    if prev is None:
        return frozenset()
    try:
        raw = read_matching(store, prev.object_key, expect_sha256(prev.object_key, bytes.fromhex(prev.sha256)))
        head = StoredPoint.parse(raw).head
        return frozenset(
            pack.sha256 for page in read_pages(store, head) for pack in page.packs if pack.host == head.host
        )
    except (Damaged, NotTrusted, FormatTooNew):
        return frozenset()


def _sign(services: Services, store: Store, vault: Vault, point: StoredPoint, decision: Decision, reason: str) -> None:
    """One verdict a point, also when this runs again after a crash."""
    if verdict_of(store, vault_id=vault.id, point=point, signer=services.keys.public):
        return
    write_state(
        store,
        vault_id=vault.id,
        point=point,
        decision=decision,
        signer=services.keys.signing,
        clock=services.clock,
        reason=reason,
    )


def _known(store: Store, point: StoredPoint) -> tuple[NamedObject, ...]:
    """All index objects and list pages of the point: what the host's next job may count as known."""
    pages: list[NamedObject] = list(point.head.list_objects)
    try:
        return (*index_objects(store, point.head), *pages)
    except StatewardError:
        return tuple(pages)


def _conclude(
    session: Session, job_id: str, verdict: Verdict, known: tuple[NamedObject, ...], *, now: datetime
) -> JobState:
    job = session.get_one(Job, job_id)
    host = session.get_one(Host, job.host_id)
    if job.state != JobState.COMMITTED.value:
        raise JobOver(f"The job is {job.state}.")
    if verdict.point is not None and verdict.decision is not None:
        session.merge(_row(job, verdict, known, now))
    if verdict.decision is Decision.RECEIVED and verdict.point is not None:
        warnings = verdict.point.head.warnings
        state = JobState.COMPLETED_WITH_WARNINGS if warnings else JobState.COMPLETED
        advance(job, state, now=now)
        host.last_point, host.last_code = now, ""
        return state
    code = "not_trusted" if verdict.decision is Decision.QUARANTINED else "damaged"
    reason = f"The recovery point does not hold: {verdict.reason}"
    step = "The next backup writes a new recovery point; see the host's log."
    advance(job, JobState.FAILED, now=now, code=code, reason=reason, next_step=step)
    host.last_code = code
    return JobState.FAILED


def _row(job: Job, verdict: Verdict, known: tuple[NamedObject, ...], now: datetime) -> Point:
    point = verdict.point
    assert point is not None and verdict.decision is not None  # noqa: S101, PT018 - the caller has looked
    head = point.head
    objects = [{"key": each.key, "sha256": each.sha256.hex()} for each in known]
    return Point(
        id=head.point,
        host_id=job.host_id,
        vault_id=job.vault_id,
        job_id=job.id,
        seq=head.seq,
        sha256=point.sha256.hex(),
        object_key=point.key,
        verdict=verdict.decision.value,
        reason=verdict.reason[:_REASON_CHARACTERS],
        created=_moment(head.created, now),
        received=now,
        logical_bytes=head.logical_bytes,
        new_bytes=head.new_bytes,
        stored_bytes=head.stored_bytes,
        files=head.files,
        warnings=head.warnings,
        consistency=head.consistency[:200],
        indexes=[each for each in objects if each["key"].startswith("index/")],
        lists=[each for each in objects if each["key"].startswith("lists/")],
        pack_hosts=sorted({pack.host for pack in verdict.packs}),
    )


def _moment(text: str, fallback: datetime) -> datetime:
    """The host's clock: shown, never decided upon."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return fallback
    return moment if moment.tzinfo is not None else fallback


def committed_jobs(session: Session, *, limit: int = 50) -> list[str]:
    query = select(Job.id).where(Job.state == JobState.COMMITTED.value).order_by(Job.created).limit(limit)
    return list(session.scalars(query))
