"""Loops of a role: each runs its step again and again in a thread of its own until it is told to stop.

A step that fails is logged and tried again; no failure ends a loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import StatewardError
from common.telemetry import get_logger

log = get_logger(__name__)

_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Loop:
    """`step` is called every `pause_s` seconds, or sooner when `wake` is set; after failures more seldom."""

    name: str
    step: Callable[[], object]
    pause_s: float
    wake: threading.Event | None = None
    close: Callable[[], object] | None = None
    """Called in the loop's own thread at its end."""


class LoopThreads:
    """Starts loops, and ends them all."""

    def __init__(self, loops: tuple[Loop, ...]) -> None:
        self._stop = threading.Event()
        self._loops = loops
        self._threads = [
            threading.Thread(target=self._run, args=(loop,), name=loop.name, daemon=True) for loop in loops
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, *, within_s: float = 10.0) -> None:
        """Steps that are under way end first."""
        self._stop.set()
        for loop in self._loops:
            if loop.wake is not None:
                loop.wake.set()
        for thread in self._threads:
            thread.join(within_s)

    def _run(self, loop: Loop) -> None:
        failures = 0
        while not self._stop.is_set():
            if loop.wake is not None:
                loop.wake.clear()
            try:
                loop.step()
                failures = 0
            except StatewardError as error:
                failures += 1
                log.warning("step failed", loop=loop.name, code=error.code, reason=error.message, failures=failures)
            except Exception:
                failures += 1
                log.exception("unexpected error", loop=loop.name, failures=failures)
            pause = min(loop.pause_s * 2 ** min(failures, 6), max(loop.pause_s, _LONGEST_PAUSE_S))
            if loop.wake is not None and not failures:
                loop.wake.wait(pause)
            else:
                self._stop.wait(pause)
        if loop.close is not None:
            loop.close()
