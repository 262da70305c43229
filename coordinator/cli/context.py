"""What every command is given: the global options, the API, the output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from common.contracts.base import Contract
from common.errors import CoordinatorUnavailable, UsageError
from common.secret import Secret
from coordinator.client import ApiClient
from coordinator.clock import Clock
from coordinator.settings import load_client_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalOptions:
    """Before or after the command. Environment: STATEWARD_API, STATEWARD_TOKEN, STATEWARD_DATA."""

    api: str | None = None
    token: str | None = field(default=None, repr=False)
    data: Path | None = None
    json: bool = False
    quiet: bool = False
    debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Built by `__main__`, which hands the real clock and sleep in."""

    options: GlobalOptions
    clock: Clock
    sleep: Callable[[float], None]
    console: Console
    """stdout, for people and for documents."""
    messages: Console
    """stderr."""

    def data(self) -> Path:
        return load_client_settings(data=self.options.data).data

    def client(self) -> ApiClient:
        """By `--api` with a token, or the embedded coordinator of `--data`.

        Raises:
            UsageError: an API without a token; CoordinatorUnavailable: no coordinator has run in the data folder.
        """
        found = load_client_settings(api=self.options.api, token=self.options.token, data=self.options.data)
        folder = found.data / "coordinator"
        token = found.token.get_secret_value()
        if found.api:
            if not token:
                raise UsageError("--api is given without --token.", next_step="Give --token or set STATEWARD_TOKEN.")
            return ApiClient(found.api, Secret(token))
        try:
            url = str(json.loads((folder / "api.json").read_text())["url"])
            token = token or (folder / "admin-token").read_text().strip()
        except (OSError, ValueError, KeyError) as error:
            raise CoordinatorUnavailable(
                f"No coordinator has run with the data folder {found.data}.",
                next_step="Start one with `stateward up`, or name one with --api and --token, or another --data.",
            ) from error
        return ApiClient(url, Secret(token))

    def show(self, document: Contract, rows: Sequence[tuple[str, object]], *, name: str) -> None:
        """One thing: as JSON, as its id alone, or as lines for people."""
        if self.options.json:
            self.print_json(document)
        elif self.options.quiet:
            self.line(name)
        else:
            table = Table(show_header=False, box=None, pad_edge=False)
            table.add_column(style="bold")
            table.add_column(overflow="fold")
            for label, value in rows:
                table.add_row(label, text(value))
            self.console.print(table)

    def show_all(
        self,
        documents: Iterable[Contract],
        columns: Sequence[str],
        row: Callable[[Any], Sequence[object]],
        *,
        empty: str,
    ) -> None:
        """Many things; the first column of `row` is the id."""
        items = list(documents)
        if self.options.json:
            self.raw(json.dumps({"items": [item.model_dump(mode="json") for item in items]}))
            return
        if self.options.quiet:
            for item in items:
                self.line(text(row(item)[0]))
            return
        if not items:
            self.messages.print(empty)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, no_wrap=number == 0, overflow="fold")  # an id is copied: it stays whole
        for item in items:
            table.add_row(*(text(value) for value in row(item)))
        self.console.print(table)

    def print_json(self, document: Contract) -> None:
        self.raw(document.model_dump_json())

    def line(self, words: str) -> None:
        self.raw(words)

    def raw(self, words: str) -> None:
        """Exactly these characters and a newline: never wrapped, never marked up."""
        typer.echo(words, file=self.console.file)


def context_of(context: typer.Context) -> Context:
    found = context.find_root().obj
    assert isinstance(found, Context)  # noqa: S101 - `__main__` puts it there
    return found


def text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if hasattr(value, "strftime"):
        return str(value.astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items()) or "-"
    return str(value)


def size(number: float) -> str:
    """Bytes for people: 1.4 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:  # noqa: PLR2004 - that is what Ki means
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
