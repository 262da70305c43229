"""What both sides must spell alike: the host's list in Redis, the one Celery task, and the paths of the host's API.

The task takes one argument, the signed job; Celery's own headers are ignored except the task's name.
"""

from __future__ import annotations

JOB_TASK = "stateward.job"

ENROL_PATH = "/v1/enrol"
ENROL_KEYS_PATH = "/v1/enrol/keys"
CHECKIN_PATH = "/v1/checkin"

SERVER_TIME_HEADER = "Stateward-Time"
"""RFC 3339 UTC, on every answer to a host: how it learns that its clock is off (code `clock_skew`, 401)."""


def queue_name(host_id: str) -> str:
    return f"host.{host_id}"


def lease_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/lease"


def renew_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/renew"
