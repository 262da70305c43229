"""`stateward up` and `stateward quickstart`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from common.errors import Cancelled, ExitCode
from common.program import Interrupted
from coordinator.cli.context import Context, context_of
from coordinator.embedded.system import Ports, Running, embedded_system
from coordinator.embedded.tour import Outcome, main_job, show_outcome

_ENDINGS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # a closed terminal is SIGHUP, where there is one

ApiPort = Annotated[int | None, typer.Option(help="port of the API; a free one unless given")]
StorePort = Annotated[int | None, typer.Option(help="port of the embedded S3 store; a free one unless given")]
QueuePort = Annotated[int | None, typer.Option(help="port of the embedded queue; a free one unless given")]


def register(app: typer.Typer) -> None:
    """Add the commands of the embedded system."""
    app.command()(up)
    app.command()(quickstart)


def up(
    context: typer.Context, api_port: ApiPort = None, store_port: StorePort = None, queue_port: QueuePort = None
) -> None:
    """Run everything on this machine, in the foreground: queue, store, coordinator, and a worker that is enrolled."""
    ours = context_of(context)
    with _running(ours, Ports(api=api_port, store=store_port, queue=queue_port)) as running:
        _show_addresses(ours, running)
        _stay(ours, running)


def quickstart(
    context: typer.Context,
    api_port: ApiPort = None,
    store_port: StorePort = None,
    queue_port: QueuePort = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="end everything after the report")] = False,
) -> None:
    """The main job on this machine: start, enrol, back up the system state, restore it, compare, report."""
    ours = context_of(context)
    with _running(ours, Ports(api=api_port, store=store_port, queue=queue_port)) as running:
        _show_passphrase(ours, running)
        outcome = main_job(ours, running)
        if ours.options.json:
            ours.raw(outcome.model_dump_json())
        else:
            show_outcome(ours, running, outcome)
            if not once and ours.console.is_terminal:
                _stay(ours, running)
    code = _exit_code(outcome)
    if code is not ExitCode.DONE:
        raise typer.Exit(int(code))


def _exit_code(outcome: Outcome) -> ExitCode:
    if outcome.differences:
        return ExitCode.DAMAGED
    return ExitCode.WARNINGS if outcome.warnings else ExitCode.DONE


@contextmanager
def _running(ours: Context, ports: Ports) -> Iterator[Running]:
    """The system, until the block ends or somebody asks it to end (Ctrl-C, SIGTERM, a closed terminal)."""

    def end(_number: int, _frame: object) -> None:
        for number in _ENDINGS:
            signal.signal(number, signal.SIG_IGN)  # once: the end itself must not be interrupted
        raise Interrupted

    for number in _ENDINGS:
        signal.signal(number, end)

    def say(words: str) -> None:
        if not ours.options.quiet:
            ours.messages.print(words, highlight=False)

    try:
        with embedded_system(ours.data().absolute(), ports, say=say, sleep=ours.sleep) as running:
            yield running
            say("Ending …")
    except Interrupted:
        raise Cancelled("Ended by Ctrl-C; everything that was started has ended.") from None


def _stay(ours: Context, running: Running) -> None:
    """Until Ctrl-C, which is how it is meant to end; raises ServiceFailed when a server is given up."""
    ours.messages.print("Running. Ctrl-C ends everything.", highlight=False)
    with suppress(Interrupted):
        while True:
            running.supervisor.wait(1.0)


def _show_passphrase(ours: Context, running: Running) -> None:
    if running.passphrase is None or ours.options.json or ours.options.quiet:
        return
    for line in (
        "",
        f"Passphrase: {running.passphrase.reveal()}",
        f"Shown once; kept in {running.passphrase_file} (only this user reads it).",
        "Without it nobody can open this machine's recovery points.",
        "",
    ):
        ours.messages.print(line, highlight=False, markup=False)


def _show_addresses(ours: Context, running: Running) -> None:
    _show_passphrase(ours, running)
    rows = [
        ("API", running.api.url),
        ("metrics", running.metrics_url),
        ("vault", running.vault.url),
        ("passphrase", running.passphrase_file),
        ("data", running.layout.root),
        ("back up now", f"stateward backup {running.host_id} --wait --data {running.layout.root}"),
    ]
    ours.show(running.vault, rows, name=running.api.url)
