"""The tie between a running job and its lease: renewals, cancels, fresh credentials, the grant.

A thread renews every 30 s, every second while somebody watches, and at each change of stage. No answer from the
coordinator stops nothing: the job goes on, and `before_commit` renews once more right before the point is written.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Self

from common.contracts.jobs import Lease, Progress, Renewal, RenewRequest, RestoreKey, Stage, StorageCredentials
from common.errors import Busy, Cancelled, ClockSkewed, LeaseLost, StatewardError, Unreachable
from common.signing import unb64
from common.telemetry import get_logger
from worker.client import ONCE, CoordinatorClient
from worker.journal import Journal

log = get_logger(__name__)

TICK_S = 0.5
WATCHED_S = 1.0
GRANT_S = 2.0
"""Between renewals while a person is to make the grant."""
JOURNAL_S = 2.0
"""Progress goes to the journal, for `status`, no oftener."""


class Ending(StrEnum):
    """Why a job is to stop before its work is done."""

    CANCELLED = "cancelled"
    LOST = "lost"
    """The lease is somebody else's, or over."""
    STOPPED = "stopped"
    """The agent stops; the job is resumed later."""


class Tether:
    """A context: renews from entering to leaving. All methods may be called by several threads."""

    def __init__(
        self,
        *,
        client: CoordinatorClient,
        journal: Journal,
        lease: Lease,
        stopping: threading.Event,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._journal = journal
        self._lease = lease
        self._stopping = stopping
        self._monotonic = monotonic
        self._now = now
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._progress = Progress(stage=Stage.CHECKING)
        self._credentials = lease.credentials
        self._rate_limit: int | None = None
        self._watched = False
        self._ending: Ending | None = None
        self._restore_key: RestoreKey | None = None
        self._grant: bytes | None = None
        self._due = monotonic()
        self._journalled = float("-inf")
        self._thread = threading.Thread(target=self._run, name="renewals", daemon=True)

    def __enter__(self) -> Self:
        """With a renewal first: a resumed lease may be over, or its credentials old."""
        with contextlib.suppress(Unreachable, Busy, ClockSkewed):
            self._renew()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed = True
        self._wake.set()
        self._thread.join(35)

    # what the work calls ────────────────────────────────────────────────────────────────────────────────────────────

    def progress(self, progress: Progress) -> None:
        """Cheap enough for every block."""
        with self._lock:
            news = progress.stage is not self._progress.stage
            self._progress = progress
            if news:
                self._due = self._monotonic()
        if news:
            self._wake.set()

    def cancelled(self) -> bool:
        return self._ending is not None or self._stopping.is_set()

    def credentials(self) -> StorageCredentials:
        """The newest; they change during a long job."""
        with self._lock:
            return self._credentials

    def rate_limit(self) -> int | None:
        """Bytes a second; None is unlimited."""
        with self._lock:
            return self._rate_limit

    def before_commit(self) -> None:
        """Returns when the coordinator has just said that this attempt may write its point.

        Raises:
            LeaseLost: it may not.
            Cancelled: the job was cancelled, or the agent stops.
            Unreachable: no answer until the lease's deadline; nothing was committed.
        """
        while True:
            try:
                self._renew()
            except (Unreachable, Busy, ClockSkewed):
                if self._now() >= self._lease.deadline:
                    raise
                self._stopping.wait(TICK_S * 4)
            else:
                self._raise_if_ending()
                return
            self._raise_if_ending()

    # what the job's process asks ────────────────────────────────────────────────────────────────────────────────────

    @property
    def ending(self) -> Ending | None:
        with self._lock:
            if self._ending is None and self._stopping.is_set():
                return Ending.STOPPED
            return self._ending

    @property
    def stage(self) -> Stage:
        with self._lock:
            return self._progress.stage

    def offer(self, key: RestoreKey) -> None:
        """Show this restore key with every renewal from now on."""
        with self._lock:
            self._restore_key = key
            self._due = self._monotonic()
        self._wake.set()

    def grant(self) -> bytes | None:
        with self._lock:
            return self._grant

    # ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(TICK_S)
            self._wake.clear()
            if self._closed:
                return
            try:
                self._turn()
            except StatewardError as error:
                log.info("renewal failed", job_id=self._lease.job_id, code=error.code, reason=error.message)
            except Exception:
                log.exception("renewal broke", job_id=self._lease.job_id)

    def _turn(self) -> None:
        job_id = self._lease.job_id
        if self._journal.cancelled(job_id):
            self._end(Ending.CANCELLED)
        now = self._monotonic()
        if now - self._journalled >= JOURNAL_S:
            self._journalled = now
            self._journal.keep_progress(job_id, self._progress)
        if now >= self._due:
            self._renew()

    def _renew(self) -> None:
        """One call. Raises Unreachable, Busy and ClockSkewed; every other refusal ends the lease."""
        with self._renewing:
            with self._lock:
                self._due = self._monotonic() + self._period()
                request = RenewRequest(
                    epoch=self._lease.epoch,
                    fence=self._lease.fence,
                    progress=self._progress,
                    restore_key=self._restore_key,
                )
            try:
                renewal = self._client.renew(self._lease.job_id, request, ONCE)
            except (Unreachable, Busy, ClockSkewed):
                raise
            except StatewardError as error:
                log.warning("lease lost", job_id=self._lease.job_id, code=error.code, reason=error.message)
                self._end(Ending.LOST)
                return
            self._take(renewal)

    def _take(self, renewal: Renewal) -> None:
        with self._lock:
            self._rate_limit = renewal.rate_limit
            self._watched = renewal.watched
            self._credentials = renewal.credentials or self._credentials
            if renewal.grant is not None:
                self._grant = unb64(renewal.grant)
            self._due = self._monotonic() + self._period()
        if renewal.cancel:
            self._end(Ending.CANCELLED)

    def _period(self) -> float:
        if self._watched:
            return WATCHED_S
        if self._progress.stage is Stage.AWAITING_GRANT:
            return min(GRANT_S, self._lease.renew_every_s)
        return self._lease.renew_every_s

    def _end(self, ending: Ending) -> None:
        with self._lock:
            self._ending = self._ending or ending

    def _raise_if_ending(self) -> None:
        ending = self.ending
        if ending is Ending.LOST:
            raise LeaseLost(f"The lease of job {self._lease.job_id} has ended.")
        if ending is not None:
            raise Cancelled(f"Job {self._lease.job_id} is to stop.")
