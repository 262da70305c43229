"""The states of a job and the edges between them: one table, and no other code sets a state.

`rank` orders what hosts report: a report moves a job only forward in (attempt, rank), so late and repeated reports are
harmless. Who may walk an edge stands beside it.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    CANCELLING = "cancelling"
    LOST = "lost"
    COMMITTED = "committed"
    COMPLETED = "completed"
    COMPLETED_WITH_WARNINGS = "completed_with_warnings"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSED = "missed"

    @property
    def ended(self) -> bool:
        return not EDGES[self]

    @property
    def rank(self) -> int:
        return _RANKS[self]


S = JobState

EDGES: dict[JobState, frozenset[JobState]] = {
    S.QUEUED: frozenset({S.LEASED, S.MISSED, S.COMMITTED, S.CANCELLED, S.FAILED}),
    S.LEASED: frozenset({S.RUNNING, S.COMMITTED, S.FAILED, S.CANCELLED, S.CANCELLING, S.LOST}),
    S.RUNNING: frozenset(
        {S.COMMITTED, S.COMPLETED, S.COMPLETED_WITH_WARNINGS, S.FAILED, S.CANCELLING, S.CANCELLED, S.LOST}
    ),
    S.CANCELLING: frozenset({S.CANCELLED, S.COMMITTED, S.FAILED, S.COMPLETED, S.COMPLETED_WITH_WARNINGS}),
    S.LOST: frozenset({S.RUNNING, S.COMMITTED, S.QUEUED, S.FAILED, S.CANCELLED}),
    S.COMMITTED: frozenset({S.COMPLETED, S.COMPLETED_WITH_WARNINGS, S.FAILED}),
    S.COMPLETED: frozenset(),
    S.COMPLETED_WITH_WARNINGS: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
    S.MISSED: frozenset(),
}

_RANKS = {
    S.QUEUED: 0,
    S.LEASED: 1,
    S.RUNNING: 2,
    S.CANCELLING: 3,
    S.LOST: 3,
    S.COMMITTED: 4,
    S.COMPLETED: 5,
    S.COMPLETED_WITH_WARNINGS: 5,
    S.FAILED: 5,
    S.CANCELLED: 5,
    S.MISSED: 5,
}


def may_follow(now: JobState, then: JobState) -> bool:
    """Whether the edge exists."""
    return then in EDGES[now]
