"""Commands of a host in a fleet: register, run, status, passphrase. `add_commands` hangs them into the program."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from common.errors import Busy, ConfigInvalid
from common.privatefiles import write_private
from common.telemetry import configure_logging
from common.vault.keys import generate_passphrase, read_passphrase_file
from worker import compose
from worker.enrol import Registration, confirm, register
from worker.identity import ACTIVE, find_identity
from worker.jobprocess import watch_pipe
from worker.jobrun import run_job
from worker.onlyone import only_one
from worker.settings import WorkerSettings, load_settings
from worker.status import Status, read_status

State = Annotated[Path | None, typer.Option("--state", help="State folder [default: see `--help` of the program].")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
PassphraseFile = Annotated[
    Path, typer.Option("--passphrase-file", help="File with the passphrase on its first line.", show_default=False)
]

STOP_AT_LAST_S = 10.0
JOB_LOCK_WAIT_S = 15.0

passphrase = typer.Typer(no_args_is_help=True, help="The passphrase that opens this host's recovery points.")


def add_commands(app: typer.Typer) -> None:
    app.command("register")(register_command)
    app.command("run")(run_command)
    app.command("run-job", hidden=True)(run_job_command)
    app.command("status")(status_command)
    app.add_typer(passphrase, name="passphrase")


def register_command(
    credentials: Annotated[
        Path, typer.Option("--credentials", help="Vault credentials file; deleted after use.", show_default=False)
    ],
    passphrase_file: PassphraseFile,
    key_saved: Annotated[
        str | None, typer.Option("--key-saved", help="Fingerprint of the key whose passphrase you have kept.")
    ] = None,
    region: Annotated[str, typer.Option("--region", help="This host's region; must be the vault's.")] = "",
    proxy: Annotated[str | None, typer.Option("--proxy", help="Proxy for HTTPS.")] = None,
    state: State = None,
    as_json: Json = False,  # noqa: FBT002  typer
) -> None:
    """Register this host with the coordinator that made the vault credentials file."""
    settings = load_settings(state=state, proxy=proxy)
    secret = read_passphrase_file(passphrase_file)
    done = register(credentials, secret, compose.enrol_deps(settings), key_saved=key_saved, region=region)
    _tell_registration(done, as_json=as_json)


def run_command(state: State = None) -> None:
    """Run the agent in the foreground; what the service runs. Ends with SIGTERM or Ctrl-C."""
    _log()
    settings = load_settings(state=state)
    journal = compose.open_journal(settings)
    with only_one(settings.state / compose.AGENT_LOCK, what="Another agent runs on this state folder"):
        agent = compose.make_agent(settings, journal)

        def stop(*_: Any) -> None:  # a thread of its own: the handler may interrupt code that holds the agent's locks
            threading.Thread(target=agent.stop, daemon=True).start()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        code = agent.run()
    raise typer.Exit(code)


def run_job_command(
    job_id: Annotated[str, typer.Argument()],
    instance: Annotated[str, typer.Option("--instance")],
    state: State = None,
) -> None:
    """Run one journalled job (the agent calls this)."""
    _log()
    from worker.fleetworks import FleetWorks  # noqa: PLC0415  only a job's process needs the vault's code

    settings = load_settings(state=state)
    journal = compose.open_journal(settings)
    stopping = threading.Event()

    def stop(*_: Any) -> None:
        stopping.set()
        last = threading.Timer(STOP_AT_LAST_S, os._exit, (Busy.exit_code,))
        last.daemon = True
        last.start()

    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop, daemon=True).start())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch_pipe(io.FileIO(sys.stdin.fileno(), closefd=False), stop)
    lock = settings.state / compose.JOB_LOCK
    with only_one(lock, what="Another job runs on this state folder", wait_s=JOB_LOCK_WAIT_S):
        deps = compose.job_deps(settings, journal, instance=instance, stopping=stopping, works=FleetWorks(settings))
        with deps.client:
            run_job(job_id, deps)


def status_command(state: State = None, as_json: Json = False) -> None:  # noqa: FBT002  typer
    """Enrolment, last job, connections, versions."""
    settings = load_settings(state=state)
    identity = find_identity(settings.state)
    journal = compose.open_journal(settings)
    status = read_status(identity, journal, agent_running=lambda: _agent_runs(settings))
    if as_json:
        typer.echo(json.dumps(status.as_json(), ensure_ascii=False))
    else:
        _tell_status(status)


@passphrase.command("generate")
def generate_command(
    to: Annotated[Path | None, typer.Option("--to", help="New file (0600) for it, instead of the screen.")] = None,
) -> None:
    """Make a passphrase of 150 bits."""
    fresh = generate_passphrase()
    if to is None:
        typer.echo(fresh.reveal())
        return
    if to.exists():
        raise ConfigInvalid(f"{to} is there already.", next_step="Name a new file with --to.")
    write_private(to, fresh.reveal().encode() + b"\n")
    typer.echo(str(to))


@passphrase.command("confirm")
def confirm_command(
    fingerprint: Annotated[str, typer.Argument(help="The fingerprint that `register` showed.")],
    state: State = None,
    as_json: Json = False,  # noqa: FBT002  typer
) -> None:
    """Say that the passphrase is kept: backups of this host may start."""
    _tell_registration(confirm(fingerprint, compose.enrol_deps(load_settings(state=state))), as_json=as_json)


def _log() -> None:
    """Lines on stderr: for people on a terminal, else JSON."""
    configure_logging(json=not sys.stderr.isatty())
    logging.getLogger("celery").setLevel(logging.WARNING)


def _agent_runs(settings: WorkerSettings) -> bool:
    try:
        with only_one(settings.state / compose.AGENT_LOCK, what="The agent runs"):
            return False
    except Busy:
        return True


def _tell_registration(done: Registration, *, as_json: bool) -> None:
    if as_json:
        fields = {"host": done.host_id, "vault": done.vault, "state": done.state, "fingerprint": done.fingerprint}
        typer.echo(json.dumps(fields))
        return
    typer.echo(f"Host {done.host_id} is registered with vault {done.vault}.")
    typer.echo(f"Fingerprint of its recovery key: {done.fingerprint}")
    if done.state == ACTIVE:
        typer.echo("The key counts as saved: backups may start.")
    else:
        typer.echo("The registration is incomplete, and no backup runs, until you confirm that the passphrase is kept:")
        typer.echo(f"  stateward-worker passphrase confirm {done.fingerprint}")


def _tell_status(status: Status) -> None:
    table = Table(show_header=False, box=None)
    for name, value in status.as_json().items():
        if value not in (None, "", [], {}):
            shown = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(name.replace("_", " "), shown)
    Console().print(table)
