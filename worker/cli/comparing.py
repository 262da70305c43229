"""`stateward-worker compare` (hidden): what `quickstart` calls to prove a restore, on paths of its own.

It reads the tree of the point with the passphrase and compares each entry with the file that the restore wrote, read
afresh from the disk; and, where the source has not changed since it was read, the source's bytes with the entry too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import Damaged, ExitCode
from common.vault.entry import Entry, Kind
from common.vault.keys import read_passphrase_file
from common.vault.tree import read_root
from worker.cli import opening
from worker.cli.opening import Host, PassphraseFile, Point, Vault
from worker.cli.terminal import Interrupt
from worker.compare import Comparison
from worker.fetch import Fetcher
from worker.platform import this_host
from worker.platform.api import SourceFile, SourceFiles, SourceUnreadable
from worker.reading import content_digest, open_source
from worker.recovery import open_host
from worker.reporting import shown
from worker.restore import read_entries

_ROOT = b"/"


def compare_command(
    vault: Vault,
    passphrase_file: PassphraseFile,
    restored: Annotated[Path, typer.Option("--restored", help="Folder that the point was restored into.")],
    point: Point = "latest",
    host: Host = None,
) -> None:
    """Compare a restored folder with its recovery point, and with the source where it is unchanged."""
    interrupt = Interrupt()
    passphrase = read_passphrase_file(passphrase_file)
    machine = this_host()
    comparison = Comparison(machine.files, restored, permitted_owner=machine.facts().elevated)
    differences: list[dict[str, Any]] = []
    counted = {"compared_files": 0, "compared_sources": 0}

    def differs(path: bytes, reason: str) -> None:
        differences.append({"path": shown(path), "reason": reason})

    with interrupt.caught():
        _, store = opening.open_location(vault, interrupt)
        opened = open_host(store, passphrase, host=host, point=point)
        root = read_root(opened.root_of(opened.choose(point)))
        seen: set[bytes] = set()
        with Fetcher(store, vault_id=opened.vault.id, parallel=4, cancelled=interrupt.check) as fetcher:
            for entry, _ in read_entries(root, fetcher, (), differs):
                interrupt.check()
                seen.add(entry.path)
                for reason in comparison.differences(entry):
                    differs(entry.path, reason)
                if entry.kind != Kind.DIRECTORY:
                    counted["compared_files"] += 1
                unchanged = _source_agrees(machine.files, entry)
                if unchanged is not None:
                    counted["compared_sources"] += 1
                    if not unchanged:
                        differs(entry.path, "the source's content is not what was backed up")
        for extra in _extra(restored, seen):
            differs(extra, "was restored and is not in the recovery point")
    typer.echo(json.dumps({"point": point, **counted, "differences": differences}))
    if differences:
        raise typer.Exit(ExitCode.DAMAGED)


def _source_agrees(files: SourceFiles, entry: Entry) -> bool | None:
    """Whether the source still has the bytes of the entry; None when it has changed since, or is not there."""
    if entry.kind != Kind.FILE:
        return None
    real = files.join(_ROOT, entry.path)
    try:
        now = files.describe(real, entry.path, lambda _path, _reason: None)
        if (now.size, now.mtime, now.ctime, now.inode) != (entry.size, entry.mtime, entry.ctime, entry.inode):
            return None
        with open_source(files, SourceFile(entry=now, real=real)) as handle:
            digest = content_digest(handle)
            return None if handle.changed() else digest == entry.digest
    except (OSError, SourceUnreadable, Damaged):
        return None


def _extra(restored: Path, seen: set[bytes]) -> list[bytes]:
    top = os.fsencode(restored)
    found = []
    for folder, folders, names in os.walk(top):
        for name in [*folders, *names]:
            path = os.path.relpath(os.path.join(folder, name), top)  # noqa: PTH118  # bytes
            if path not in seen:
                found.append(path)
    return found
