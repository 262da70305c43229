"""The main job, shown: a backup through the queue, a restore with a grant, and the comparison of every file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from common.contracts.base import Contract
from common.contracts.jobs import BackupSpec, JobKind, RestoreSpec, Stage
from common.contracts.operator import JobCreate, JobView
from common.errors import Damaged, StatewardError, error_classes
from common.jobstates import JobState
from common.vault.keys import read_passphrase_file
from coordinator.cli.context import Context, size
from coordinator.cli.granting import Wanted, grant_for, target_fingerprint
from coordinator.cli.restoring import wait_for_key
from coordinator.cli.watching import watch_job
from coordinator.embedded.system import Running, run_worker

COMPARE_S = 3600.0
SHOWN = 20


class Outcome(Contract):
    """What `quickstart --json` prints. Sizes in bytes, times in seconds."""

    ok: bool
    vault: str
    host: str
    job: str
    point: str
    state: str
    files: int
    logical_bytes: int
    new_bytes: int
    stored_bytes: int
    warnings: int
    backup_seconds: float
    restore_seconds: float
    compared_files: int
    differences: tuple[dict[str, Any], ...]
    vault_url: str
    passphrase_file: str
    api_url: str
    metrics_url: str
    data: str


def main_job(ours: Context, running: Running) -> Outcome:
    """Back up, restore, compare.

    Raises:
        StatewardError: with the code and the sentence of the job that failed.
    """
    _cancel_waiting_restores(running)
    _say(ours, "Backing up this machine's system state through the queue:")
    backup = _wait(ours, running, running.api.create_job(JobCreate(host=running.host_id, spec=BackupSpec())))
    if backup.point is None or backup.report is None:
        raise Damaged("The backup ended without a recovery point.")
    _say(ours, "Restoring it through the queue, with a grant made from the passphrase:")
    restore = _restore(ours, running, backup.point)
    assert restore.report is not None  # noqa: S101  # `_wait` gives completed jobs alone
    _say(ours, "Comparing every file with what was read …")
    compared = run_worker(
        "compare",
        "--vault",
        running.vault.url,
        "--point",
        backup.point,
        "--host",
        running.host_id,
        "--passphrase-file",
        str(running.passphrase_file),
        "--restored",
        restore.report.destination,
        timeout_s=COMPARE_S,
        AWS_SHARED_CREDENTIALS_FILE=str(running.recovery_credentials),
    )
    return Outcome(
        ok=not compared["differences"] and backup.state in {JobState.COMPLETED, JobState.COMPLETED_WITH_WARNINGS},
        vault=running.vault.id,
        host=running.host_id,
        job=backup.id,
        point=backup.point,
        state=backup.state.value,
        files=backup.report.files,
        logical_bytes=backup.report.logical_bytes,
        new_bytes=backup.report.new_bytes,
        stored_bytes=backup.report.stored_bytes,
        warnings=backup.report.warnings_count,
        backup_seconds=backup.report.seconds,
        restore_seconds=restore.report.seconds,
        compared_files=compared["compared_files"],
        differences=tuple(compared["differences"]),
        vault_url=running.vault.url,
        passphrase_file=str(running.passphrase_file),
        api_url=running.api.url,
        metrics_url=running.metrics_url,
        data=str(running.layout.root),
    )


def show_outcome(ours: Context, running: Running, outcome: Outcome) -> None:
    """The table, the command that recovers with bucket and passphrase alone, and the addresses."""
    ratio = f"{outcome.new_bytes / outcome.stored_bytes:.2f}" if outcome.stored_bytes else "–"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in (
        ("state", outcome.state),
        ("recovery point", outcome.point),
        ("files", f"{outcome.files:,}"),
        ("logical", size(outcome.logical_bytes)),
        ("new", size(outcome.new_bytes)),
        ("stored", f"{size(outcome.stored_bytes)} (compression ratio {ratio})"),
        ("backup", f"{outcome.backup_seconds:.1f} s"),
        ("restore", f"{outcome.restore_seconds:.1f} s"),
        ("warnings", f"{outcome.warnings:,}"),
        ("compared", f"{outcome.compared_files:,} files, {len(outcome.differences)} differ"),
        ("API", outcome.api_url),
        ("metrics", outcome.metrics_url),
        ("passphrase file", outcome.passphrase_file),
        ("data", outcome.data),
    ):
        table.add_row(name, value)
    ours.console.print(table)
    for difference in outcome.differences[:SHOWN]:
        ours.console.print(f"  differs: {difference['path']}: {difference['reason']}", highlight=False, markup=False)
    ours.console.print("\nTo recover with nothing but the bucket and the passphrase:", highlight=False)
    ours.line("  " + recover_command(running, outcome))


def recover_command(running: Running, outcome: Outcome) -> str:
    words = [
        f"AWS_SHARED_CREDENTIALS_FILE={shlex.quote(str(running.recovery_credentials))}",
        f"{shlex.quote(_worker_program())} recover",
        f"--vault {shlex.quote(outcome.vault_url)}",
        f"--point {outcome.point}",
        f"--passphrase-file {shlex.quote(outcome.passphrase_file)}",
        f"--to {shlex.quote(str(Path.home() / 'recovered'))}",
    ]
    return " \\\n    ".join(words)


def _worker_program() -> str:
    """Where this installation has it; its plain name when it was not installed as a program."""
    beside = Path(sys.executable).with_name("stateward-worker")
    return str(beside) if beside.exists() else beside.name


def _cancel_waiting_restores(running: Running) -> None:
    """Those of a run that was interrupted: nobody will send their grants, and this host does one job at a time."""
    for job in list(running.api.jobs(host=running.host_id)):
        writes = job.progress is not None and job.progress.stage is Stage.RESTORING
        if job.kind is JobKind.RESTORE and not job.state.ended and not writes:
            running.api.cancel_job(job.id)


def _restore(ours: Context, running: Running, point: str) -> JobView:
    api = running.api
    spec = RestoreSpec(point=point, source_host=running.host_id)
    job = api.create_job(JobCreate(host=running.host_id, spec=spec))
    view = wait_for_key(ours, api, job.id)
    _say(ours, f"  the host's key has the fingerprint {target_fingerprint(view)}")
    wanted = Wanted(job_id=job.id, target_host=running.host_id, spec=spec)
    passphrase = read_passphrase_file(running.passphrase_file)
    return _wait(ours, running, api.send_grant(job.id, grant_for(view, wanted, passphrase)))


def _wait(ours: Context, running: Running, job: JobView) -> JobView:
    done = watch_job(ours, running.api, job.id, documents=False)
    if done.state in {JobState.COMPLETED, JobState.COMPLETED_WITH_WARNINGS}:
        return done
    known = {cls.code: cls for cls in error_classes()}
    reason = done.reason or f"The {job.kind.value} job is {done.state.value}."
    raise known.get(done.code, StatewardError)(reason, next_step=done.next_step or None)


def _say(ours: Context, words: str) -> None:
    if not ours.options.quiet and not ours.options.json:
        ours.messages.print(words, highlight=False)
