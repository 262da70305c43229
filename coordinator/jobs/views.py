"""Jobs as operators see them."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from pydantic import TypeAdapter
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from common.contracts.jobs import JobKind, JobReport, JobSpec, Progress
from common.contracts.operator import JobPage, JobView
from common.errors import JobNotFound, RequestInvalid
from common.jobstates import JobState
from coordinator.hosts.models import Host
from coordinator.jobs.models import Job

_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)


def spec_of(job: Job) -> JobSpec:
    return _SPEC.validate_python(job.spec)


def find_job(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return job


def job_view(job: Job, host: Host) -> JobView:
    return JobView(
        id=job.id,
        kind=JobKind(job.kind),
        host_id=job.host_id,
        host_name=host.name,
        state=JobState(job.state),
        attempt=job.attempt or 0,
        progress=Progress.model_validate(job.progress) if job.progress else None,
        report=JobReport.model_validate(job.report) if job.report else None,
        point=job.point,
        spec=spec_of(job),
        code=job.code or "",
        reason=job.reason or "",
        next_step=job.next_step or "",
        created=job.created,
        started=job.started,
        ended=job.ended,
    )


def job_page(session: Session, *, host: str | None, state: JobState | None, cursor: str | None, limit: int) -> JobPage:
    """Newest first."""
    query = select(Job, Host).join(Host, Host.id == Job.host_id)
    if host is not None:
        query = query.where(Job.host_id == host)
    if state is not None:
        query = query.where(Job.state == state.value)
    if cursor:
        created, last = read_cursor(cursor)
        query = query.where(or_(Job.created < created, and_(Job.created == created, Job.id < last)))
    rows = session.execute(query.order_by(Job.created.desc(), Job.id.desc()).limit(limit + 1)).all()
    more = make_cursor(rows[limit - 1][0].created, rows[limit - 1][0].id) if len(rows) > limit else None
    return JobPage(items=tuple(job_view(job, of) for job, of in rows[:limit]), next_cursor=more)


def make_cursor(moment: datetime, last: str) -> str:
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{last}".encode()).decode()


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """Raises RequestInvalid."""
    try:
        moment, _, last = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        parsed = datetime.fromisoformat(moment)
    except (ValueError, binascii.Error) as error:
        raise RequestInvalid("The cursor is not one that this API gave.") from error
    if parsed.tzinfo is None:
        raise RequestInvalid("The cursor is not one that this API gave.")
    return parsed, last
