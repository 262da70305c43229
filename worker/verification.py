"""The slow precheck, running beside the backup: the verification of installed packages.

It takes half a minute of disk and warns at most, so the backup need not wait for it to begin; and what it found counts for
a day, so that a host that is backed up often is not read by it each time. (On Windows `sfc` decides before the backup.)
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from datetime import UTC, datetime
from pathlib import Path

from common.errors import Cancelled
from common.privatefiles import write_private
from worker.platform.api import CheckResult, Outcome

VERIFICATION = "package_verification"
VERIFY_S = 30.0
"""Time limit of the tool, and of waiting for it."""
KEPT_S = 24 * 3600.0
_FILE = "package-verification.json"


class Verification:
    """`begin`, then `result` once, and `end` on every way out."""

    def __init__(
        self,
        state: Path,
        run: Callable[[Callable[[], bool]], CheckResult | None],
        *,
        clock: Callable[[], float],
    ) -> None:
        """`run` is told how to find out that it was cancelled; None means that this machine has no such check."""
        self._file = state / _FILE
        self._run = run
        self._clock = clock
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, "verify")
        self._kept: CheckResult | None = None
        self._future: Future[CheckResult | None] | None = None

    def begin(self) -> None:
        self._kept = self._read()
        if self._kept is None:
            self._future = self._pool.submit(self._run, self._ended.is_set)

    def result(self) -> list[CheckResult]:
        """What it found, today or now; or that it did not end in time. Empty when it was not begun, or is not there."""
        if self._kept is not None:
            return [self._kept]
        if self._future is None:
            return []
        try:
            found = self._future.result(VERIFY_S)
        except (TookTooLong, Cancelled):
            return [CheckResult(name=VERIFICATION, outcome=Outcome.WARN, reason="It did not end in time.")]
        if found is None:
            return []
        self._keep(found)
        return [found]

    def end(self) -> None:
        self._ended.set()
        self._pool.shutdown(wait=True)

    def _read(self) -> CheckResult | None:
        try:
            kept = json.loads(self._file.read_bytes())
            at = float(kept["at"])
            if not 0 <= self._clock() - at < KEPT_S:
                return None
            day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
            return CheckResult(
                name=VERIFICATION,
                outcome=Outcome(kept["outcome"]),
                reason=f"{kept['reason']} (As of {day}.)",
                next_step=str(kept["next_step"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, found: CheckResult) -> None:
        kept = {
            "at": self._clock(),
            "outcome": found.outcome.value,
            "reason": found.reason,
            "next_step": found.next_step,
        }
        write_private(self._file, json.dumps(kept).encode())
