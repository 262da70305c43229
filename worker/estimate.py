"""How much there is to back up: for the progress bar alone.

The first backup counts in a thread of its own, beside the backup; later ones take the size of the last, which is near
enough and costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from common.privatefiles import write_private
from common.vault.entry import Kind
from worker.excludes import Excludes
from worker.platform.api import SourceFiles, SourceRoot
from worker.reporting import Reporter
from worker.scan import scan

_FILE = "last-size"


class Estimate:
    """A context: counting ends with it."""

    def __init__(
        self, folder: Path, reporter: Reporter, *, roots: Sequence[SourceRoot], files: SourceFiles, excludes: Excludes
    ) -> None:
        self._file = folder / _FILE
        self._reporter = reporter
        self._roots = roots
        self._files = files
        self._excludes = excludes
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        try:
            self._reporter.bytes_total = int(self._file.read_text())
        except (OSError, ValueError):
            self._thread = threading.Thread(target=self._count, name="estimate", daemon=True)
            self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def keep(self, size: int) -> None:
        """What it came to, for the next time."""
        write_private(self._file, str(size).encode())

    def _count(self) -> None:
        total = 0
        for found in scan(self._roots, files=self._files, warn=lambda _path, _reason: None, excludes=self._excludes):
            if self._ended.is_set():
                return
            if found.entry.kind == Kind.FILE:
                total += found.entry.size
        self._reporter.bytes_total = total
