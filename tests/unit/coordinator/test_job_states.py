"""`advance` walks the edges of the table, all of them and no other; and nothing else sets a state."""

from __future__ import annotations

import ast
import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest

import coordinator
from common.errors import JobOver
from common.jobstates import EDGES, JobState
from coordinator.jobs.models import Job
from coordinator.jobs.states import advance

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("now", "then"), list(itertools.product(JobState, JobState)))
def test_every_edge(now: JobState, then: JobState) -> None:
    job = Job(id="j", state=now.value, grant=b"g", request_id="r")
    if then in EDGES[now]:
        advance(job, then, now=NOW)
        assert job.state == then.value
        assert (job.ended == NOW) is then.ended
        assert (job.grant is None) is then.ended
    else:
        with pytest.raises(JobOver):
            advance(job, then, now=NOW)
        assert (job.state, job.ended) == (now.value, None)


def test_no_other_code_sets_a_jobs_state() -> None:
    root = Path(coordinator.__file__).parent
    setting = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute)
        and target.attr == "state"
        and isinstance(target.value, ast.Name)
        and target.value.id == "job"
    ]
    assert [place.partition(":")[0] for place in setting] == ["jobs/states.py"]
