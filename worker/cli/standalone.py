"""Commands for one host and one vault without a coordinator: init, backup, recover, check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from common.contracts.jobs import BackupSpec
from common.errors import ConfigInvalid, ExitCode, UsageError
from common.privatefiles import make_private_folder
from common.vault.documents import Immutability
from common.vault.keys import read_passphrase_file
from common.vault.location import VaultLocation
from worker.backup import BackupDeps, run_backup
from worker.check import CheckPlan, Endpoint, checks, raise_on_failure
from worker.cli import opening
from worker.cli.comparing import compare_command
from worker.cli.opening import Host, Json, PassphraseFile, Point, Quiet, State, Vault
from worker.cli.terminal import Interrupt, as_rows, list_reasons, progress_shown, size
from worker.onlyone import only_one
from worker.pinned import vault_folder
from worker.platform import this_host
from worker.platform.api import CheckResult, Outcome
from worker.reach import http_time
from worker.recovery import open_host
from worker.restore import RestoreDeps, RestoreRequest, run_restore
from worker.settings import load_settings
from worker.standalone import find_pinned, initialise, plan_backup, receive
from worker.target import Conflict

MIN_FREE = 256 * 1024 * 1024


def add_standalone_commands(app: typer.Typer) -> None:
    app.command("init")(init_command)
    app.command("backup")(backup_command)
    app.command("recover")(recover_command)
    app.command("check")(check_command)
    app.command("compare", hidden=True)(compare_command)


def init_command(
    vault: Vault,
    passphrase_file: PassphraseFile,
    take_over: Annotated[
        str | None, typer.Option("--take-over", help="Continue this host (id) of the vault; needs its passphrase.")
    ] = None,
    dedup: Annotated[str, typer.Option("--dedup", help="vault: share blocks; host: share nothing.")] = "vault",
    immutability: Annotated[Immutability, typer.Option("--immutability")] = Immutability.DISABLED,
    state: State = None,
    as_json: Json = False,  # noqa: FBT002  # typer
) -> None:
    """Make a vault, or add this host to one, and pin its keys here. Backups then need no passphrase."""
    if dedup not in {"vault", "host"}:
        raise UsageError(f"--dedup is vault or host, not {dedup!r}.")
    if immutability is not Immutability.DISABLED:
        raise ConfigInvalid(
            f"--immutability {immutability} cannot be set up by this version yet.",
            next_step="Leave it away; lock extension, retention and doctor come with the next version.",
        )
    interrupt = Interrupt()
    folder = make_private_folder(load_settings(state=state).state)
    passphrase = read_passphrase_file(passphrase_file)
    with interrupt.caught():
        location, store = opening.open_location(vault, interrupt, create=True)
        pinned, made = initialise(
            store,
            location,
            state=folder,
            host_name=this_host().facts().hostname,
            passphrase=passphrase,
            domain_policy=dedup,
            immutability=immutability,
            clock=opening.now,
            take_over=take_over,
        )
    document = {
        "vault": pinned.vault_id,
        "host": pinned.host_id,
        "key_id": pinned.key_id,
        "made": made,
        "vault_url": pinned.url,
        "state": str(folder),
    }
    if as_json:
        typer.echo(json.dumps(document))
        return
    as_rows(document)
    typer.echo("Keep the passphrase: nobody can open this host's recovery points without it.")


def backup_command(
    vault: Vault,
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders.", show_default=False)] = None,
    system_state: Annotated[bool, typer.Option("--system-state", help="This machine's system state.")] = False,  # noqa: FBT002
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Glob of paths to leave out.")] = None,
    reread: Annotated[bool, typer.Option("--reread", help="Read unchanged files too.")] = False,  # noqa: FBT002
    limit: Annotated[str | None, typer.Option("--limit", help="Upload no faster, such as 20MiB/s.")] = None,
    max_in_flight: Annotated[int, typer.Option("--max-in-flight", min=1, max=64, help="Packs under way.")] = 8,
    state: State = None,
    as_json: Json = False,  # noqa: FBT002
    quiet: Quiet = False,  # noqa: FBT002
) -> None:
    """Back up this host's system state, or files and folders, or both."""
    if not paths and not system_state:
        raise UsageError("Nothing was named to back up.", next_step="Name paths, or say --system-state.")
    missing = [path for path in paths or [] if not path.exists() and not path.is_symlink()]
    if missing:
        raise UsageError(f"The path {missing[0]} does not exist.", next_step="Name paths that exist.")
    bytes_a_second = opening.rate(limit)
    interrupt = Interrupt()
    settings = load_settings(state=state)
    folder = settings.state
    spec = BackupSpec(
        system_state=system_state,
        paths=tuple(str(path.absolute()) for path in paths or []),
        excludes=tuple(exclude or ()),
        reread=reread,
        max_in_flight=max_in_flight,
    )
    host = this_host()
    with interrupt.caught(), progress_shown(quiet=as_json or quiet) as progress:
        location, store = opening.open_location(vault, interrupt, limit=bytes_a_second)
        pinned, opened = find_pinned(folder, location, store)
        own = vault_folder(folder, pinned.vault_id)
        with only_one(own / "run.lock", what="Another backup of this host into this vault runs"):
            plan = CheckPlan(folder=folder, needed_bytes=MIN_FREE, verify_timeout_s=0)
            raise_on_failure([run() for _, run in checks(host, plan)])
            request, chain = plan_backup(store, pinned, opened, spec=spec, state=folder)
            deps = BackupDeps(
                store=store,
                host=host,
                pinned=pinned,
                state=folder,
                clock=opening.now,
                monotonic=opening.monotonic,
                random_bytes=opening.random_bytes(),
                progress=progress,
                cancelled=interrupt.check,
                before_commit=interrupt.check,
                excludes=(folder.absolute(), *settings.never_back_up, *((location.path,) if location.path else ())),
                cores=opening.cores(),
            )
            report = run_backup(request, deps)
            receive(store, pinned, request, chain, opening.now)
    for problem in chain.problems:
        typer.echo(f"Warning: {problem}", err=True)
    document = {
        "point": request.point,
        "host": pinned.host_id,
        "vault": pinned.vault_id,
        "files": report.files,
        "logical_bytes": report.logical_bytes,
        "new_bytes": report.new_bytes,
        "stored_bytes": report.stored_bytes,
        "packs": report.packs,
        "warnings": [each.model_dump() for each in report.warnings],
        "seconds": report.seconds,
    }
    if as_json:
        typer.echo(json.dumps(document))
    elif quiet:
        typer.echo(request.point)
    else:
        sizes = {
            "logical_bytes": report.logical_bytes,
            "new_bytes": report.new_bytes,
            "stored_bytes": report.stored_bytes,
        }
        shown = {name: size(value) for name, value in sizes.items()}
        as_rows({**document, **shown, "warnings": report.warnings_count})
        list_reasons("Could not be read, or not whole", report.warnings, report.warnings_count)
    if report.warnings_count:
        raise typer.Exit(ExitCode.WARNINGS)


def recover_command(
    vault: Vault,
    passphrase_file: PassphraseFile,
    to: Annotated[Path, typer.Option("--to", help="Folder to restore into.", show_default=False)],
    point: Point = "latest",
    host: Host = None,
    include: Annotated[list[str] | None, typer.Option("--include", help="Glob of paths; all when not given.")] = None,
    conflict: Annotated[
        Conflict, typer.Option("--conflict", help="What to do with files that are there.")
    ] = Conflict.REFUSE,
    as_json: Json = False,  # noqa: FBT002
    quiet: Quiet = False,  # noqa: FBT002
) -> None:
    """Restore a recovery point with nothing but the bucket and the passphrase."""
    interrupt = Interrupt()
    passphrase = read_passphrase_file(passphrase_file)
    with interrupt.caught(), progress_shown(quiet=as_json or quiet) as progress:
        _, store = opening.open_location(vault, interrupt)
        opened = open_host(store, passphrase, host=host, point=point)
        found = opened.choose(point)
        request = RestoreRequest(
            vault_id=opened.vault.id,
            root=opened.root_of(found),
            destination=to.absolute(),
            conflict=conflict,
            includes=tuple(include or ()),
            expected_bytes=found.head.logical_bytes,
        )
        deps = RestoreDeps(
            store=store,
            host=this_host(),
            monotonic=opening.monotonic,
            progress=progress,
            cancelled=interrupt.check,
        )
        report = run_restore(request, deps)
    for problem in opened.problems:
        typer.echo(f"Warning: {problem}", err=True)
    document = {
        "point": found.head.point,
        "files": report.files,
        "bytes": report.logical_bytes,
        "seconds": report.seconds,
        "failed": [each.model_dump() for each in report.failed],
    }
    if as_json:
        typer.echo(json.dumps(document))
    elif quiet:
        typer.echo(found.head.point)
    else:
        as_rows({**document, "bytes": size(report.logical_bytes), "failed": report.failed_count, "to": str(to)})
        list_reasons("Not permitted to this user or file system", report.warnings, len(report.warnings))
        list_reasons("Could not be restored", report.failed, report.failed_count)
    if report.failed_count:
        raise typer.Exit(ExitCode.DAMAGED)


def check_command(
    vault: Annotated[str | None, typer.Option("--vault", help="Check that this vault can be reached.")] = None,
    system_state: Annotated[bool, typer.Option("--system-state", help="Verify installed packages, too.")] = False,  # noqa: FBT002
    network: Annotated[bool, typer.Option("--network", help="Every endpoint needed, with the reason.")] = False,  # noqa: FBT002
    verify_seconds: Annotated[float, typer.Option("--verify-seconds", help="Time limit of --system-state.")] = 120.0,
    state: State = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Run the prechecks alone."""
    folder = load_settings(state=state).state
    endpoints = _endpoints(folder, vault)
    http = next((each.address for each in endpoints if each.address.startswith("http")), None)
    plan = CheckPlan(
        folder=folder,
        needed_bytes=MIN_FREE,
        endpoints=tuple(endpoints),
        remote_time=None if http is None else lambda: http_time(http),
        now=None if http is None else opening.now,
        verify_timeout_s=verify_seconds if system_state else 0,
    )
    results: list[CheckResult] = []
    for name, run in checks(this_host(), plan):
        if network and not name.startswith(("reach_", "clock")):
            continue
        result = run()
        results.append(result)
        if not as_json:
            typer.echo(f"{result.outcome.value:<5} {result.name:<22} {result.reason}")
            if result.next_step and result.outcome is not Outcome.PASS:
                typer.echo(f"{'':<29}{result.next_step}")
    if as_json:
        typer.echo(json.dumps({"ok": not _failed(results), "checks": [_row(each) for each in results]}))
    raise_on_failure(results)


def _endpoints(folder: Path, vault: str | None) -> list[Endpoint]:
    """The store of the vault named, and what an enrolment needs."""
    from worker.identity import find_identity  # noqa: PLC0415  # only a host of a fleet has one

    found: list[Endpoint] = []
    identity = find_identity(folder)
    if identity is not None:
        found.append(Endpoint(name="coordinator", address=identity.coordinator_url))
        found.append(Endpoint(name="queue", address=identity.queue.url, required=False))
        vault = vault or identity.vault.url
    if vault is not None:
        location = VaultLocation.parse(vault)
        if location.scheme == "s3":
            address = location.endpoint or f"https://s3.{location.region}.amazonaws.com"
            found.append(Endpoint(name="store", address=address))
    return found


def _failed(results: list[CheckResult]) -> bool:
    return any(each.outcome is Outcome.FAIL for each in results)


def _row(result: CheckResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "next_step": result.next_step,
        "seconds": round(result.seconds, 3),
    }
