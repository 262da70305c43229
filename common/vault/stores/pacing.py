"""A rate limit for what goes up: bytes a second, changed at any time, kept to the kilobyte and not to the pack."""

from __future__ import annotations

import threading
from collections.abc import Callable

SLICE = 64 * 1024
"""Bytes that are let through at once."""


class Pacer:
    """Shared by all uploads of a process. `limit()` is asked for every slice: None lets everything through at once."""

    def __init__(
        self, limit: Callable[[], int | None], *, monotonic: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = 0.0

    def pass_on(self, size: int) -> None:
        """Wait until `size` bytes (one slice) may go. What `sleep` raises goes through."""
        limit = self._limit()
        if not limit:
            return
        with self._lock:
            now = self._monotonic()
            begins = max(now, self._free_at)
            self._free_at = begins + size / limit
        wait = begins - now
        if wait > 0:
            self._sleep(wait)


class PacedBody:
    """Bytes that are read no faster than the pacer lets them: what an HTTP client sends from."""

    def __init__(self, data: bytes | bytearray | memoryview, pacer: Pacer) -> None:
        self._view = memoryview(data)
        self._pacer = pacer
        self._at = 0

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int = -1) -> bytes:
        wanted = SLICE if size < 0 else min(size, SLICE)
        part = bytes(self._view[self._at : self._at + wanted])
        self._pacer.pass_on(len(part))
        self._at += len(part)
        return part
