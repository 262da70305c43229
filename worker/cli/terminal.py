"""What the worker's commands show: progress, sizes, tables; and how they are interrupted."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from common.contracts.jobs import PathReason
from common.contracts.jobs import Progress as JobProgress
from common.errors import Cancelled
from common.program import Interrupted

LINE_EVERY_S = 60.0
SHOWN_WARNINGS = 20


class Interrupt:
    """Ctrl-C and SIGTERM end a run at its next safe place; a second Ctrl-C ends it where it is."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    @contextmanager
    def caught(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raises Cancelled once it was asked for."""
        if self._asked.is_set():
            raise Cancelled("The run was cancelled; what was stored is used again by the next one.")

    def sleep(self, seconds: float) -> None:
        """As `time.sleep`, but raises Cancelled at once."""
        self._asked.wait(seconds)
        self.check()

    def _ask(self, number: int, _frame: object) -> None:
        if self._asked.is_set() and number == signal.SIGINT:
            raise Interrupted
        self._asked.set()


@contextmanager
def progress_shown(*, quiet: bool) -> Iterator[Callable[[JobProgress], None]]:
    """A bar on a terminal, else a line a minute, both on stderr; nothing when `quiet`."""
    if quiet:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("checking", total=None, amount="", rate="")

        def show(now: JobProgress) -> None:
            bars.update(
                task,
                description=now.stage.value,
                total=now.bytes_total or None,
                completed=now.bytes_done,
                amount=amount(now),
                rate=f"{size(now.rate)}/s" if now.rate else "",
            )

        yield show


class _Lines:
    def __init__(self) -> None:
        self._told = time.monotonic()

    def show(self, now: JobProgress) -> None:
        if time.monotonic() - self._told >= LINE_EVERY_S:
            self._told = time.monotonic()
            typer.echo(f"{now.stage.value}: {amount(now)}, {size(now.rate)}/s", err=True)


def amount(now: JobProgress) -> str:
    of = f" of {size(now.bytes_total)}" if now.bytes_total else ""
    return f"{now.files_done} files, {size(now.bytes_done)}{of}"


def size(number: float) -> str:
    """Bytes for people: 1.4 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:  # noqa: PLR2004  # that is what Ki means
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def list_reasons(title: str, reasons: tuple[PathReason, ...], count: int) -> None:
    """Paths and reasons on stderr, the first of them."""
    if not count:
        return
    typer.echo(f"{title}: {count}", err=True)
    for each in reasons[:SHOWN_WARNINGS]:
        typer.echo(f"  {each.path}: {each.reason}" if each.path else f"  {each.reason}", err=True)
    more = len(reasons) - SHOWN_WARNINGS
    if more > 0:
        typer.echo(f"  … and {more if count <= len(reasons) else count - SHOWN_WARNINGS} more (see --json)", err=True)


def as_rows(document: dict[str, Any]) -> None:
    """A small document as lines of name and value."""
    width = max(len(name) for name in document)
    for name, value in document.items():
        typer.echo(f"{name:<{width}}  {value}")
