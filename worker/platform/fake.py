"""A scripted host: this machine's files, and prechecks, snapshots and faults as a test wants them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.errors import SnapshotFailed
from worker.platform.api import CheckResult, HostFacts, Outcome, Snapshot, SourceUnreadable, SystemState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from common.vault.entry import Entry
    from worker.platform.api import (
        Cancelled,
        Host,
        OpenFile,
        SnapshotMode,
        SourceFile,
        SourceFiles,
        SourceRoot,
        TargetTree,
        Warn,
    )

FACTS = HostFacts(
    hostname="fake-1",
    os_name="Fake Linux",
    os_version="1",
    kernel="6.1.0-1-fake",
    architecture="x86_64",
    os_build="fake-1-6.1.0",
    elevated=True,
)


@dataclass(slots=True, kw_only=True)
class FakeFiles:
    """Files of `inner`; opening a path in `scripts` follows its words, one each time: `ok`, `changed` (it says that it
    changed), or any other word, which is the reason why it cannot be read. A script that is used up says `ok`."""

    inner: SourceFiles
    scripts: dict[bytes, str] = field(default_factory=dict)

    def names(self, real: bytes) -> list[bytes]:
        return self.inner.names(real)

    def join(self, real: bytes, name: bytes) -> bytes:
        return self.inner.join(real, name)

    def describe(self, real: bytes, tree: bytes, warn: Warn) -> Entry:
        return self.inner.describe(real, tree, warn)

    def is_pseudo(self, real: bytes, device: int) -> bool:
        return self.inner.is_pseudo(real, device)

    def open(self, source: SourceFile) -> OpenFile:
        path = source.entry.path
        word, _, rest = self.scripts.get(path, "ok").partition(" ")
        self.scripts[path] = rest or "ok"
        if word not in ("ok", "changed"):
            raise SourceUnreadable(path, word)
        handle = self.inner.open(source)
        return _Changed(handle) if word == "changed" else handle


class _Changed:
    def __init__(self, inner: OpenFile) -> None:
        self._inner = inner
        self.entry = inner.entry

    def extents(self) -> Iterator[tuple[int, int]]:
        return self._inner.extents()

    def read_into(self, buffer: bytearray | memoryview, offset: int) -> int:
        return self._inner.read_into(buffer, offset)

    def changed(self) -> bool:
        return True

    def close(self) -> None:
        self._inner.close()


@dataclass(slots=True, kw_only=True)
class FakeHost:
    """`script` has one word a snapshot: `ok`, or the reason why none can be made."""

    inner: Host
    files: SourceFiles
    roots: tuple[SourceRoot, ...] = ()
    facts_now: HostFacts = FACTS
    results: tuple[CheckResult, ...] = (CheckResult(name="supported_os", outcome=Outcome.PASS, reason="Fake."),)
    free: int = 1 << 40
    consistency: str = "fake snapshot"
    script: str = "ok"
    snapshots_open: int = 0

    def facts(self) -> HostFacts:
        return self.facts_now

    def free_bytes(self, folder: Path) -> int:
        del folder
        return self.free

    def prechecks(
        self, *, verify_timeout_s: float, cancelled: Cancelled
    ) -> Iterator[tuple[str, Callable[[], CheckResult]]]:
        del verify_timeout_s, cancelled
        for result in self.results:
            yield result.name, lambda result=result: result  # type: ignore[misc]

    def source_root(self, path: Path) -> SourceRoot:
        return self.inner.source_root(path)

    def system_state(self, scratch: Path) -> SystemState:
        del scratch
        return SystemState(roots=self.roots)

    @contextmanager
    def volume_snapshot(self, roots: Iterable[SourceRoot], mode: SnapshotMode) -> Iterator[Snapshot]:
        del mode
        word, _, rest = self.script.partition(" ")
        self.script = rest or "ok"
        if word != "ok":
            raise SnapshotFailed(f"The scripted snapshot failed: {word}.")
        self.snapshots_open += 1
        try:
            yield Snapshot(consistency=self.consistency, roots=tuple(roots))
        finally:
            self.snapshots_open -= 1

    def target(self, root: Path, *, numeric_owner: bool) -> TargetTree:
        return self.inner.target(root, numeric_owner=numeric_owner)
