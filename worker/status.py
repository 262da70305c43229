"""What `stateward-worker status` tells: read from the state folder alone, whether the agent runs or not."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from common import __version__
from common.jobstates import JobState
from worker.identity import Identity
from worker.journal import Journal, JournalledJob, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class LastJob:
    id: str
    kind: str
    state: str
    ended: str
    code: str
    message: str
    point: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Field names are stable: scripts read them."""

    registered: bool
    host: str = ""
    vault: str = ""
    vault_url: str = ""
    coordinator: str = ""
    state: str = ""
    fingerprint: str = ""
    agent_running: bool = False
    queue: str = "unknown"
    """`reachable`, `unreachable` or `unknown`."""
    last_checkin: str | None = None
    last_checkin_error: str | None = None
    running: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    last_job: LastJob | None = None
    next_job: str | None = None
    """Known to the coordinator alone until it tells its hosts."""
    unsent_results: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_status(identity: Identity | None, journal: Journal, *, agent_running: Callable[[], bool]) -> Status:
    versions = {"agent": __version__, "python": platform.python_version()}
    if identity is None:
        return Status(registered=False, versions=versions)
    facts = journal.facts()
    ok, bad = facts.get("last_checkin"), facts.get("last_checkin_error")
    ended = sorted(journal.jobs(Phase.ENDED), key=lambda job: job.ended or 0.0)
    return Status(
        registered=True,
        host=identity.host_id,
        vault=identity.vault.name,
        vault_url=identity.vault.url,
        coordinator=identity.coordinator_url,
        state=identity.state,
        fingerprint=identity.recovery_fingerprint,
        agent_running=(runs := agent_running()),
        queue=facts.get("queue", ("unknown", 0.0))[0] if runs else "unknown",
        last_checkin=_moment(ok[1]) if ok else None,
        last_checkin_error=bad[0] if bad and (ok is None or bad[1] > ok[1]) else None,
        running=[_running(job) for job in journal.jobs(Phase.RUNNING)],
        waiting=[job.job_id for job in journal.jobs(Phase.WAITING)],
        last_job=_last(ended[-1]) if ended else None,
        unsent_results=len(journal.unsent()),
        counters=journal.counters(),
        versions=versions,
    )


def _running(job: JournalledJob) -> dict[str, Any]:
    progress = None if job.progress is None else job.progress.model_dump(mode="json")
    return {"id": job.job_id, "kind": job.kind, "progress": progress}


def _last(job: JournalledJob) -> LastJob:
    result = job.result
    return LastJob(
        id=job.job_id,
        kind=job.kind,
        state=result.state.value if result else JobState.FAILED.value,
        ended=_moment(job.ended or 0.0),
        code=result.report.code if result else "",
        message=result.report.message if result else "",
        point=result.point if result else None,
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
