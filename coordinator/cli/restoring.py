"""`stateward restore`: asks for the job, waits until the host asks for its grant, makes it here, hands it over."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from common.contracts.jobs import Conflict, RestoreSpec
from common.contracts.operator import GrantView, JobCreate
from common.errors import CoordinatorUnavailable, JobOver, StatewardError, error_classes
from common.vault.keys import read_passphrase_file
from coordinator.cli.checked import checked
from coordinator.cli.context import Context, context_of
from coordinator.cli.granting import Wanted, grant_for, target_fingerprint
from coordinator.cli.jobs import shown_or_watched
from coordinator.client import ApiClient

POLL_S = 0.5
PATIENCE_S = 600.0


def restore(
    context: typer.Context,
    point: str,
    host: Annotated[str, typer.Option(help="the host to restore on, by name or id")],
    passphrase_file: Annotated[Path, typer.Option(help="of the host the point is of; it stays with this command")],
    to: Annotated[str | None, typer.Option(help="folder on the host; its own scratch folder unless given")] = None,
    conflict: Annotated[Conflict, typer.Option(help="what to do with a file that is there")] = Conflict.REFUSE,
    include: Annotated[list[str] | None, typer.Option(help="glob of what is restored; several times")] = None,
    target_key: Annotated[str | None, typer.Option(help="fingerprint the target host's key must have")] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="follow the job; the exit code is the job's")] = False,
) -> None:
    """Restore a recovery point on a host. The passphrase never leaves this command."""
    ours = context_of(context)
    passphrase = read_passphrase_file(passphrase_file)
    with ours.client() as api:
        found = api.point(point)
        target = api.host(host)
        spec = checked(
            RestoreSpec,
            point=found.point,
            source_host=found.host_id,
            destination=to,
            conflict=conflict,
            includes=tuple(include or ()),
        )
        job = api.create_job(checked(JobCreate, host=target.id, spec=spec))
        wanted = Wanted(job_id=job.id, target_host=target.id, spec=spec, target_fingerprint=target_key)
        try:
            view = wait_for_key(ours, api, job.id)
            ours.messages.print(f"The host's key has the fingerprint {target_fingerprint(view)}.", highlight=False)
            job = api.send_grant(job.id, grant_for(view, wanted, passphrase))
        except JobOver:
            raise
        except Exception:
            with contextlib.suppress(StatewardError):  # what went wrong first is what is told
                api.cancel_job(job.id)
            raise
        shown_or_watched(ours, api, job, wait=wait)


def wait_for_key(ours: Context, api: ApiClient, job_id: str) -> GrantView:
    """The grant's ingredients, once the host has asked.

    Raises:
        JobOver: the job ended before; CoordinatorUnavailable: the host did not ask within ten minutes.
    """
    waited = 0.0
    while waited < PATIENCE_S:
        job = api.job(job_id)
        if job.state.ended:
            known = {cls.code: cls for cls in error_classes()}
            reason = job.reason or f"The job is {job.state.value}: it asked for no grant."
            raise known.get(job.code, JobOver)(reason, next_step=job.next_step or None)
        if job.attempt:
            view = api.grant(job_id)
            if view.public_key is not None:
                return view
        ours.sleep(POLL_S)
        waited += POLL_S
    raise CoordinatorUnavailable(
        "The host did not ask for its grant.", next_step="Check that the host's agent runs: `stateward host show`."
    )
