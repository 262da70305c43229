"""`stateward job …` and `stateward backup`."""

from __future__ import annotations

from typing import Annotated

import typer

from common.contracts.jobs import BackupSpec
from common.contracts.operator import JobCreate, JobView
from common.errors import ExitCode, UsageError
from common.jobstates import JobState
from coordinator.cli.checked import checked
from coordinator.cli.context import Context, context_of, size
from coordinator.cli.watching import exit_code_of, watch_job
from coordinator.client import ApiClient

app = typer.Typer(help="Jobs: look, watch, cancel.")


@app.command("list")
def list_(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="of this host, by name or id")] = None,
    state: Annotated[str | None, typer.Option(help="in this state")] = None,
    limit: Annotated[int, typer.Option(min=1, help="how many at most")] = 50,
) -> None:
    """List jobs, newest first."""
    if state is not None and state not in set(JobState):
        raise UsageError(f"Option --state: there is no state {state!r}.", next_step=", ".join(JobState))
    ours = context_of(context)
    with ours.client() as api:
        jobs = [job for job, _ in zip(api.jobs(host=host, state=state), range(limit), strict=False)]
        ours.show_all(
            jobs,
            ("JOB", "KIND", "HOST", "STATE", "CREATED", "CODE"),
            lambda job: (job.id, job.kind.value, job.host_name, job.state.value, job.created, job.code),
            empty="No job yet: `stateward backup HOST` makes one.",
        )


@app.command()
def show(context: typer.Context, job: str) -> None:
    """Show one job."""
    ours = context_of(context)
    with ours.client() as api:
        view = api.job(job)
    show_job(ours, view)


@app.command()
def watch(context: typer.Context, job: str) -> None:
    """Follow a job to its end; the exit code is the job's."""
    ours = context_of(context)
    with ours.client() as api:
        finish(ours, watch_job(ours, api, job))


@app.command()
def cancel(context: typer.Context, job: str) -> None:
    """Cancel a job: at once when no host has it, else with the host's next renewal."""
    ours = context_of(context)
    with ours.client() as api:
        view = api.cancel_job(job)
    show_job(ours, view)


def backup(
    context: typer.Context,
    host: str,
    path: Annotated[list[str] | None, typer.Option(help="also this path; several times")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="glob of what is left out")] = None,
    *,
    system_state: Annotated[bool, typer.Option(help="the system state")] = True,
    reread: Annotated[bool, typer.Option(help="read every file, also unchanged ones")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="follow the job; the exit code is the job's")] = False,
) -> None:
    """Back up a host now."""
    ours = context_of(context)
    spec = checked(
        BackupSpec,
        system_state=system_state,
        paths=tuple(path or ()),
        excludes=tuple(exclude or ()),
        reread=reread,
    )
    with ours.client() as api:
        view = api.create_job(checked(JobCreate, host=host, spec=spec))
        shown_or_watched(ours, api, view, wait=wait)


def shown_or_watched(ours: Context, api: ApiClient, view: JobView, *, wait: bool) -> None:
    if wait:
        finish(ours, watch_job(ours, api, view.id))
    else:
        show_job(ours, view)


def finish(ours: Context, view: JobView) -> None:
    """Say how it ended, and end with the job's exit code."""
    if not ours.options.json:
        show_job(ours, view)
    code = exit_code_of(view)
    if code is not ExitCode.DONE:
        raise typer.Exit(int(code))


def show_job(ours: Context, view: JobView) -> None:
    rows: list[tuple[str, object]] = [
        ("job", view.id),
        ("kind", view.kind.value),
        ("host", f"{view.host_name} ({view.host_id})"),
        ("state", view.state.value),
        ("attempt", view.attempt),
        ("created", view.created),
        ("started", view.started),
        ("ended", view.ended),
    ]
    if view.point:
        rows.append(("point", view.point))
    if view.report is not None:
        rows += [
            ("files", view.report.files),
            ("size", size(view.report.logical_bytes)),
            ("new", size(view.report.new_bytes)),
            ("stored", size(view.report.stored_bytes)),
            ("seconds", round(view.report.seconds, 1)),
            ("warnings", view.report.warnings_count),
        ]
        if view.report.destination:
            rows.append(("destination", view.report.destination))
    rows += [(name, value) for name, value in (("code", view.code), ("reason", view.reason)) if value]
    if view.next_step:
        rows.append(("next step", view.next_step))
    ours.show(view, rows, name=view.id)
