"""Commands that look into a vault: points, ls, cat, verify."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from common.errors import Damaged, ExitCode, PointNotFound, UsageError
from common.vault.entry import Entry, Kind
from common.vault.keys import read_passphrase_file
from common.vault.store import Store
from common.vault.tree import Piece, read_root
from worker.cli import opening
from worker.cli.opening import Host, Json, PassphraseFile, Point, Quiet, State, Vault
from worker.cli.terminal import Interrupt, size
from worker.fetch import Fetcher
from worker.recovery import OpenedHost, open_host
from worker.reporting import shown
from worker.restore import read_entries
from worker.verifying import list_points, verify_vault

_ZEROS = bytes(1024 * 1024)
WIDE = 250
"""Columns of a table that goes into a file or a pipe: nothing is folded there."""
_BATCH = 32


def add_inspect_commands(app: typer.Typer) -> None:
    app.command("points")(points_command)
    app.command("ls")(ls_command)
    app.command("cat")(cat_command)
    app.command("verify")(verify_command)


def points_command(
    vault: Vault,
    host: Host = None,
    as_json: Json = False,  # noqa: FBT002  # typer
    quiet: Quiet = False,  # noqa: FBT002
) -> None:
    """List recovery points, and what is missing among them. Needs no passphrase."""
    interrupt = Interrupt()
    with interrupt.caught():
        _, store = opening.open_location(vault, interrupt)
        listing = list_points(store, host)
    if as_json:
        typer.echo(json.dumps({"points": listing.rows, "problems": listing.problems}))
        return
    if quiet:
        for row in listing.rows:
            typer.echo(row["point"])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(("point", "host", "created", "files", "logical", "stored", "state")):
        table.add_column(column, no_wrap=number == 0, overflow="fold")  # an id is copied: it stays whole
    for row in listing.rows:
        table.add_row(
            row["point"],
            row["host_name"] or row["host"],
            row["created"][:19].replace("T", " "),
            str(row["files"]),
            size(row["logical_bytes"]),
            size(row["stored_bytes"]),
            row["problem"] or row["verdict"] or "no verdict",
        )
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
    for problem in listing.problems:
        typer.echo(f"Warning: {problem}", err=True)


def ls_command(
    vault: Vault,
    passphrase_file: PassphraseFile,
    pattern: Annotated[str | None, typer.Argument(help="Glob of paths.", show_default=False)] = None,
    point: Point = "latest",
    host: Host = None,
    as_json: Json = False,  # noqa: FBT002
    quiet: Quiet = False,  # noqa: FBT002
) -> None:
    """List what a recovery point holds."""
    interrupt = Interrupt()
    passphrase = read_passphrase_file(passphrase_file)
    failed: list[str] = []
    rows: list[dict[str, Any]] = []
    with interrupt.caught():
        _, store = opening.open_location(vault, interrupt)
        opened = open_host(store, passphrase, host=host, point=point)
        with _fetcher(store, opened, interrupt) as fetcher:
            for entry, _ in _entries(opened, point, fetcher, (pattern,) if pattern else (), failed):
                if as_json:
                    rows.append(_row(entry))
                elif quiet:
                    typer.echo(shown(entry.path))
                else:
                    typer.echo(_line(entry))
    if as_json:
        typer.echo(json.dumps({"entries": rows, "failed": failed}))
    if failed:
        raise Damaged(failed[0])


def cat_command(
    vault: Vault,
    passphrase_file: PassphraseFile,
    path: Annotated[str, typer.Argument(help="A file in the point, as `ls` shows it.")],
    point: Point = "latest",
    host: Host = None,
) -> None:
    """Write one file of a recovery point to stdout."""
    interrupt = Interrupt()
    passphrase = read_passphrase_file(passphrase_file)
    wanted = path.strip("/")
    failed: list[str] = []
    with interrupt.caught():
        _, store = opening.open_location(vault, interrupt)
        opened = open_host(store, passphrase, host=host, point=point)
        with _fetcher(store, opened, interrupt) as fetcher:
            for entry, pieces in _entries(opened, point, fetcher, (), failed):
                if wanted not in {shown(entry.path), entry.path.decode("utf-8", "surrogateescape")}:
                    continue
                if entry.kind != Kind.FILE:
                    raise UsageError(f"{path} is not a file in this point.", next_step="List files with `ls`.")
                _write(pieces, fetcher)
                return
    if failed:
        raise Damaged(failed[0])
    raise PointNotFound(
        f"The recovery point does not hold {path}.", next_step="List what it holds with `stateward-worker ls`."
    )


def verify_command(
    vault: Vault,
    point: Annotated[str | None, typer.Option("--point", help="One point; all when not given.")] = None,
    read_data: Annotated[str, typer.Option("--read-data", help="Read packs whole: all, or a share such as 5%.")] = "0%",
    passphrase_file: Annotated[
        str | None, typer.Option("--passphrase-file", help="Opens the trees too, and every block that is read.")
    ] = None,
    host: Host = None,
    state: State = None,
    as_json: Json = False,  # noqa: FBT002
) -> None:
    """Check that points are complete and what they need is what it should be."""
    del state
    interrupt = Interrupt()
    with interrupt.caught():
        _, store = opening.open_location(vault, interrupt)
        result = verify_vault(
            store,
            host=host,
            point=point,
            share=_share(read_data),
            passphrase_file=passphrase_file,
            cancelled=interrupt.check,
        )
    if as_json:
        typer.echo(json.dumps(result.as_json()))
    else:
        typer.echo(f"{result.points} points, {result.packs} packs, {size(result.bytes_read)} read")
        for each in result.damaged:
            typer.echo(f"damaged: {each['what']}: {each['reason']}", err=True)
    if result.damaged:
        raise typer.Exit(ExitCode.DAMAGED)


def _share(text: str) -> float:
    if text == "all":
        return 1.0
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not text.endswith("%") or not 0 <= share <= 1:
        raise UsageError(f"--read-data is all or a share such as 5%, not {text!r}.")
    return share


def _fetcher(store: Store, opened: OpenedHost, interrupt: Interrupt) -> Fetcher:
    return Fetcher(store, vault_id=opened.vault.id, parallel=8, cancelled=interrupt.check)


def _entries(
    opened: OpenedHost, point: str, fetcher: Fetcher, includes: tuple[str, ...], failed: list[str]
) -> Iterator[tuple[Entry, list[Piece]]]:
    root = read_root(opened.root_of(opened.choose(point)))
    return read_entries(root, fetcher, includes, lambda path, reason: failed.append(f"{shown(path)}: {reason}"))


def _write(pieces: list[Piece], fetcher: Fetcher) -> None:
    out = sys.stdout.buffer
    for start in range(0, len(pieces), _BATCH):
        batch = pieces[start : start + _BATCH]
        blocks = fetcher.start({piece.place.id: piece.place for piece in batch if piece.place}.values())()
        for piece in batch:
            if piece.place is None:
                for at in range(0, piece.length, len(_ZEROS)):
                    out.write(_ZEROS[: min(len(_ZEROS), piece.length - at)])
                continue
            plain = blocks[piece.place.id]
            if isinstance(plain, Damaged):
                raise plain
            out.write(memoryview(plain)[piece.offset : piece.offset + piece.length])
    out.flush()


_LETTERS = {
    Kind.FILE: "-",
    Kind.DIRECTORY: "d",
    Kind.SYMLINK: "l",
    Kind.FIFO: "p",
    Kind.SOCKET: "s",
    Kind.CHAR_DEVICE: "c",
    Kind.BLOCK_DEVICE: "b",
}


def _kind(entry: Entry) -> str:
    return Kind(entry.kind).name.lower() if entry.kind in frozenset(Kind) else f"kind {entry.kind}"


def _line(entry: Entry) -> str:
    letter = _LETTERS[Kind(entry.kind)] if entry.kind in frozenset(Kind) else "?"
    arrow = f" -> {shown(entry.target)}" if entry.kind == Kind.SYMLINK else ""
    owner = f"{entry.owner or entry.uid}:{entry.group or entry.gid}"
    return f"{letter}{entry.mode:04o} {owner:<20} {entry.size:>14} {shown(entry.path)}{arrow}"


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "path": shown(entry.path),
        "kind": _kind(entry),
        "size": entry.size,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime[0] + entry.mtime[1] / 1e9,
        "target": shown(entry.target),
    }
