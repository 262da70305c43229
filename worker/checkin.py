"""The check-in: what the host has to say goes up, and what waits for it comes down. One thread, one call at a time.

At once when there is something to say, every 60 s while the queue is unreachable, else when the coordinator said. The
queue is only the faster way: a host that Redis never reaches works on check-ins alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from common.contracts.checkin import CheckinReply, CheckinRequest, HostReport
from common.errors import NotYet, StatewardError
from common.telemetry import get_logger
from worker.client import ONCE, CoordinatorClient
from worker.inbox import Inbox, Way
from worker.journal import Journal, Phase

log = get_logger(__name__)

FIRST_PAUSE_S = 1.0
WITHOUT_QUEUE_S = 60.0
REPORT_EVERY_S = 86_400.0
BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckinDeps:
    client: CoordinatorClient
    journal: Journal
    inbox: Inbox
    queue_reachable: Callable[[], bool]
    report: Callable[[], HostReport]
    running: Callable[[], tuple[str, ...]]
    cancelled: Callable[[str], None]
    """Called for each cancel that is news."""
    clock: Callable[[], float]
    random: Callable[[], float]
    """In [0, 1)."""


class CheckinLoop:
    """`run` until `stop`; `wake` for a check-in at once."""

    def __init__(self, deps: CheckinDeps) -> None:
        self._deps = deps
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._reported: HostReport | None = None
        self._reported_at = 0.0

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                pause = self.once()
                failures = 0
            except StatewardError as error:
                failures += 1
                pause = self._pause_after(error, failures)
                self._deps.journal.note("last_checkin_error", f"{error.code}: {error.message}")
                log.warning("check-in failed", code=error.code, reason=error.message, again_in_s=round(pause, 1))
                self._stopping.wait(pause)  # nothing wakes it: what there is to say waits for the coordinator
                continue
            self._wake.wait(pause)

    def once(self) -> float:
        """One check-in; the seconds until the next one.

        Raises:
            StatewardError: nothing was lost; everything is said again next time.
        """
        deps = self._deps
        events = deps.journal.unsent(BATCH)
        reply = deps.client.check_in(
            CheckinRequest(
                events=tuple(events),
                report=self._due_report(),
                queue_reachable=deps.queue_reachable(),
                running=deps.running(),
            ),
            ONCE,
        )
        self._take(reply)
        if len(events) == BATCH:
            return 0.0
        pause = reply.next_checkin_s if deps.queue_reachable() else min(reply.next_checkin_s, WITHOUT_QUEUE_S)
        return pause * (0.9 + deps.random() / 5)

    def _take(self, reply: CheckinReply) -> None:
        deps = self._deps
        for rejected in reply.rejected:
            deps.journal.count("rejected_events")
            log.warning("result rejected", result=rejected.id, reason=rejected.reason)
        deps.journal.sent((*reply.accepted, *(rejected.id for rejected in reply.rejected)))
        for job_id in reply.cancels:
            job = deps.journal.job(job_id)
            if job is not None and not job.cancel and job.phase in {Phase.WAITING, Phase.RUNNING}:
                deps.journal.cancel(job_id)
                deps.cancelled(job_id)
        for message in reply.jobs:
            deps.inbox.take(message, Way.CHECKIN)
        deps.journal.note("last_checkin", reply.server_time.isoformat())

    def _due_report(self) -> HostReport | None:
        """The host's facts when they changed, and once a day."""
        report = self._deps.report()
        now = self._deps.clock()
        if report == self._reported and now - self._reported_at < REPORT_EVERY_S:
            return None
        self._reported, self._reported_at = report, now
        return report

    def _pause_after(self, error: StatewardError, failures: int) -> float:
        self._reported = None  # it may not have arrived
        if isinstance(error, NotYet):
            return error.retry_after_s
        pause = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), WITHOUT_QUEUE_S)
        return pause * (0.5 + self._deps.random() / 2)
