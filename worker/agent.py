"""The agent (`stateward-worker run`): a Celery consumer that verifies and journals, and beside it

- the check-in thread: results up, pending jobs and cancels down;
- the runner thread: one job process at a time, resumed after any crash;
- the watchdog: ends the process when the consume loop has not polled for 120 s, so that its supervisor starts it anew.

Stopping takes seconds: the job's process stops too and leaves its job to be resumed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.contracts.checkin import HostReport
from common.privatefiles import write_private
from common.telemetry import get_logger
from worker import queue
from worker.checkin import CheckinDeps, CheckinLoop
from worker.client import CoordinatorClient
from worker.identity import Identity
from worker.inbox import Inbox, Way
from worker.jobprocess import Spawn
from worker.journal import Journal
from worker.runner import Runner, RunnerDeps

log = get_logger(__name__)

SILENT_S = 120.0
WATCH_S = 1.0
RESTART_S = 5.0
JOIN_S = 12.0
EXIT_WATCHDOG = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDeps:
    identity: Identity
    journal: Journal
    client: CoordinatorClient
    spawn: Spawn
    report: Callable[[], HostReport]
    state: Path
    start_spread_s: float
    clock: Callable[[], float]
    """Seconds since 1970."""
    monotonic: Callable[[], float]
    random: Callable[[], float]
    die: Callable[[int], None]
    """Ends the process at once with an exit code."""


class Agent:
    """`run` in the main thread; `stop` from another thread (a signal handler starts one)."""

    def __init__(self, deps: AgentDeps) -> None:
        self._deps = deps
        self._stopping = threading.Event()
        self._pulse = queue.Pulse(deps.monotonic)
        self._runner = Runner(
            RunnerDeps(
                journal=deps.journal,
                spawn=deps.spawn,
                instance=deps.client.prover.instance,
                said=self._said,
                now=lambda: datetime.fromtimestamp(deps.clock(), UTC),
            )
        )
        self._inbox = Inbox(
            identity=deps.identity,
            journal=deps.journal,
            server_now=lambda: deps.client.prover.server_now,
            arrived=self._arrived,
        )
        self._checkin = CheckinLoop(
            CheckinDeps(
                client=deps.client,
                journal=deps.journal,
                inbox=self._inbox,
                queue_reachable=lambda: self._pulse.reachable,
                report=deps.report,
                running=self._runner.running,
                cancelled=lambda _: self._runner.arrived(),
                clock=deps.clock,
                random=deps.random,
            )
        )

    def run(self) -> int:
        """Until `stop`: 0."""
        deps = self._deps
        queue.allow_consuming()
        log.info("agent starts", host=deps.identity.host_id, coordinator=deps.identity.coordinator_url)
        self._stopping.wait(deps.random() * deps.start_spread_s)
        threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("runner", self._runner.run), ("checkin", self._checkin.run), ("watchdog", self._watch))
        ]
        for thread in threads:
            thread.start()
        self._consume()
        self._runner.stop()
        self._checkin.stop()
        for thread in threads:
            thread.join(JOIN_S)
        deps.client.close()
        log.info("agent stopped")
        return 0

    def stop(self) -> None:
        self._stopping.set()
        queue.stop_consuming()

    def _consume(self) -> None:
        deps = self._deps
        ca_file = deps.state / "coordinator-ca.pem"
        if deps.identity.ca_pem:
            write_private(ca_file, deps.identity.ca_pem.encode())
        while not self._stopping.is_set():
            app = queue.make_app(
                access=deps.identity.queue,
                host_id=deps.identity.host_id,
                ca_file=str(ca_file) if deps.identity.ca_pem else "",
                pulse=self._pulse,
                take=lambda message: self._inbox.take(message, Way.QUEUE),
            )
            code = queue.consume(app)
            if not self._stopping.is_set():
                log.error("the queue's consumer ended", exit_code=code, again_in_s=RESTART_S)
                deps.journal.count("consumer_restarts")
                self._pulse.polled()
                self._stopping.wait(RESTART_S)

    def _said(self) -> None:
        self._checkin.wake()

    def _arrived(self) -> None:
        self._runner.arrived()
        if self._deps.journal.unsent(1):
            self._checkin.wake()

    def _watch(self) -> None:
        reachable: bool | None = None
        while not self._stopping.wait(WATCH_S):
            if self._pulse.silent_s > SILENT_S:
                log.critical("the consume loop has not polled", silent_s=round(self._pulse.silent_s))
                self._deps.die(EXIT_WATCHDOG)
            if self._pulse.reachable is not reachable:
                reachable = self._pulse.reachable
                self._deps.journal.note("queue", "reachable" if reachable else "unreachable")
                self._checkin.wake()
