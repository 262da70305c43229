"""How the standalone commands open a vault: location, credentials, patience."""

from __future__ import annotations

import os
import random
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from common.errors import UsageError
from common.vault.location import VaultLocation
from common.vault.store import Store
from common.vault.stores import Pacer, RetryingStore, open_store
from worker.cli.terminal import Interrupt

Vault = Annotated[
    str,
    typer.Option(
        "--vault",
        envvar="STATEWARD_VAULT",
        help="s3://bucket[/prefix]?endpoint=…&region=… (AWS credentials from the environment) or file:///path.",
        show_default=False,
    ),
]
PassphraseFile = Annotated[
    Path,
    typer.Option(
        "--passphrase-file",
        envvar="STATEWARD_PASSPHRASE_FILE",
        help="File with the passphrase on its first line.",
        show_default=False,
    ),
]
State = Annotated[
    Path | None, typer.Option("--state", help="State folder of this worker (STATEWARD_STATE).", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Ids only.")]
Host = Annotated[str | None, typer.Option("--host", help="A host of the vault, by id or name.", show_default=False)]
Point = Annotated[str, typer.Option("--point", help="A recovery point's id, or latest.")]

PATIENCE_S = 20.0
PATIENCE_AT_FIRST_S = 2.0


def now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def monotonic() -> float:
    return time.monotonic()


def random_bytes() -> Callable[[int], bytes]:
    return secrets.token_bytes


def cores() -> int:
    """Processors this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 2


_RATE = re.compile(r"(\d+(?:\.\d+)?)(B|KB|KiB|MB|MiB|GB|GiB)/s")
_UNITS = {"B": 1, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


def rate(text: str | None) -> int | None:
    """Bytes a second of a `--limit` such as 20MiB/s. Raises UsageError."""
    if text is None:
        return None
    found = _RATE.fullmatch(text.strip())
    limit = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not limit:
        raise UsageError(f"--limit is a rate such as 20MiB/s, not {text!r}.")
    return limit


def open_location(
    url: str, interrupt: Interrupt, *, create: bool = False, limit: int | None = None
) -> tuple[VaultLocation, Store]:
    """The store at a vault URL, with patience for one that is slow to answer. Raises VaultUrlInvalid, BucketMissing."""
    location = VaultLocation.parse(url)
    pacer = Pacer(lambda: limit, monotonic=time.monotonic, sleep=interrupt.sleep) if limit else None
    store = open_store(location, create=create, pacer=pacer)
    patient = RetryingStore(
        store,
        sleep=interrupt.sleep,
        random=random.random,
        patience_s=PATIENCE_S,
        patience_at_first_s=PATIENCE_AT_FIRST_S,
    )
    return location, patient
