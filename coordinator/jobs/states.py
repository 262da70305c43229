"""The one function that sets a job's state."""

from __future__ import annotations

from datetime import datetime

from common.errors import JobOver
from common.jobstates import JobState, may_follow
from coordinator.jobs.models import Job

HOLDING = (JobState.LEASED, JobState.RUNNING, JobState.CANCELLING)
"""A host holds the lease: it counts for concurrency and must be renewed."""


def advance(job: Job, to: JobState, *, now: datetime, code: str = "", reason: str = "", next_step: str = "") -> None:
    """Walk one edge of `common.jobstates.EDGES`.

    Raises:
        JobOver: there is no such edge; nothing was changed.
    """
    current = JobState(job.state)
    if not may_follow(current, to):
        raise JobOver(f"Job {job.id} is {current.value}; it cannot become {to.value}.")
    job.state = to.value
    if to.ended:
        job.ended = now
        job.grant = None  # of no use any more, and nothing that need be kept
    if to is JobState.QUEUED:
        job.request_id = ""
        job.progress = None
        job.renewed = None
    if code or to.ended or to is JobState.QUEUED:
        job.code, job.reason, job.next_step = code, reason, next_step
