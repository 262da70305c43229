"""What a job says while it runs, and what it reports at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from common.contracts.jobs import JobReport, PathReason, Progress, Stage
from worker.upload import UploadCounts

MAX_LISTED = 1000
_EVERY_S = 0.2
_WINDOW_S = 5.0


def shown(path: bytes) -> str:
    """A path for people: bytes that are not UTF-8, and control characters, as backslash escapes."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Reporter:
    """Counts, and tells at most five times a second. One thread drives it; `warn` may be called by it alone."""

    def __init__(self, tell: Callable[[Progress], None], monotonic: Callable[[], float]) -> None:
        self._tell = tell
        self._monotonic = monotonic
        self._begun = monotonic()
        self._stage = Stage.CHECKING
        self._stage_begun = self._begun
        self._stages: dict[str, float] = {}
        self._told = 0.0
        self._recent: deque[tuple[float, int]] = deque()
        self._warnings: list[PathReason] = []
        self._warned = 0
        self.counts: UploadCounts | None = None
        self.bytes_total = 0
        self.files = 0
        self.bytes = 0

    def enter(self, stage: Stage) -> None:
        """A new stage; told at once."""
        now = self._monotonic()
        self._stages[self._stage.value] = self._stages.get(self._stage.value, 0.0) + now - self._stage_begun
        self._stage, self._stage_begun = stage, now
        self._say(now)

    def warn(self, path: bytes, reason: str) -> None:
        self._warned += 1
        if len(self._warnings) < MAX_LISTED:
            self._warnings.append(PathReason(path=shown(path), reason=reason))

    def advance(self, size: int) -> None:
        """`size` more bytes of source are done."""
        self.bytes += size
        now = self._monotonic()
        if now - self._told >= _EVERY_S:
            self._say(now)

    def result(self) -> JobReport:
        """What was counted so far."""
        now = self._monotonic()
        stages = {**self._stages, self._stage.value: now - self._stage_begun}
        counts = self.counts or UploadCounts()
        return JobReport(
            files=self.files,
            logical_bytes=self.bytes,
            new_bytes=counts.new_bytes,
            stored_bytes=counts.stored_bytes,
            packs=counts.packs,
            seconds=round(now - self._begun, 3),
            stage_seconds={name: round(seconds, 3) for name, seconds in stages.items() if seconds},
            warnings_count=self._warned,
            warnings=tuple(self._warnings),
        )

    def _say(self, now: float) -> None:
        self._told = now
        self._recent.append((now, self.bytes))
        while len(self._recent) > 2 and now - self._recent[0][0] > _WINDOW_S:  # noqa: PLR2004  # a rate needs two
            self._recent.popleft()
        (then, before) = self._recent[0]
        rate = (self.bytes - before) / (now - then) if now > then else 0.0
        self._tell(
            Progress(
                stage=self._stage,
                files_done=self.files,
                bytes_done=self.bytes,
                bytes_total=max(self.bytes_total, self.bytes) if self.bytes_total else 0,
                new_bytes=self.counts.new_bytes if self.counts else 0,
                stored_bytes=self.counts.stored_bytes if self.counts else 0,
                rate=rate,
            )
        )
