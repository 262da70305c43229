"""Watching a job until it ends: a live bar on a terminal, a line a change else, one document a line with --json."""

from __future__ import annotations

from collections.abc import Iterator

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from common.contracts.operator import JobView
from common.errors import CoordinatorUnavailable, ExitCode, error_classes
from common.jobstates import JobState
from coordinator.cli.context import Context, size
from coordinator.client import ApiClient

POLL_S = 0.5
PATIENCE = 60
"""Polls without an answer that are borne: the coordinator may be restarting."""


def watch_job(context: Context, api: ApiClient, job_id: str, *, documents: bool = True) -> JobView:
    """Follow the job to its end; the last view of it. Without `documents` nothing is printed with --json."""
    if context.options.json and not documents:
        return _the_last(list(_views(context, api, job_id))[-1])
    if context.options.json:
        return _documents(context, _views(context, api, job_id))
    if context.options.quiet or not context.messages.is_terminal:
        return _lines(context, _views(context, api, job_id))
    return _bar(context, _views(context, api, job_id))


def exit_code_of(job: JobView) -> ExitCode:
    """As a program that did the job itself would end."""
    if job.state is JobState.COMPLETED:
        return ExitCode.DONE
    if job.state is JobState.COMPLETED_WITH_WARNINGS:
        return ExitCode.WARNINGS
    if job.state is JobState.CANCELLED:
        return ExitCode.CANCELLED
    return {cls.code: cls.exit_code for cls in error_classes()}.get(
        job.code, ExitCode.UNREACHABLE if job.state is JobState.MISSED else ExitCode.BUG
    )


def _views(context: Context, api: ApiClient, job_id: str) -> Iterator[JobView]:
    silent = 0
    while True:
        try:
            view = api.job(job_id)
        except CoordinatorUnavailable:
            silent += 1
            if silent > PATIENCE:
                raise
            context.sleep(POLL_S)
            continue
        silent = 0
        yield view
        if view.state.ended:
            return
        context.sleep(POLL_S)


def _documents(context: Context, views: Iterator[JobView]) -> JobView:
    last: JobView | None = None
    for view in views:
        if view != last:
            context.print_json(view)
        last = view
    return _the_last(last)


def _lines(context: Context, views: Iterator[JobView]) -> JobView:
    last: JobView | None = None
    said = ""
    for view in views:
        stage = view.progress.stage.value if view.progress and not view.state.ended else ""
        words = f"{view.state.value} {stage}".strip()
        if words != said and not context.options.quiet:
            context.messages.print(f"{view.kind.value} of {view.host_name}: {words}", highlight=False)
        said, last = words, view
    return _the_last(last)


def _bar(context: Context, views: Iterator[JobView]) -> JobView:
    last: JobView | None = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=context.messages) as bars:
        task = bars.add_task("queued", total=None, amount="", rate="")
        for view in views:
            _update(bars, task, view)
            last = view
    return _the_last(last)


def _update(bars: Progress, task: TaskID, view: JobView) -> None:
    progress = view.progress
    if view.state.ended or progress is None:
        bars.update(task, description=view.state.value)
        return
    bars.update(
        task,
        description=f"{view.state.value} · {progress.stage.value}",
        total=progress.bytes_total or None,
        completed=progress.bytes_done,
        amount=f"{size(progress.bytes_done)} of {size(progress.bytes_total)}" if progress.bytes_total else "",
        rate=f"{size(progress.rate)}/s" if progress.rate else "",
    )


def _the_last(view: JobView | None) -> JobView:
    assert view is not None  # noqa: S101 - `_views` gives at least one, or raises
    return view
