"""A lock that one process of this host holds, and that the system releases when the process dies, however it dies.

SQLite's own file lock does it, on every system and without a pid file that a crash leaves behind.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from common.errors import Busy
from common.privatefiles import write_private


@contextlib.contextmanager
def only_one(path: Path, *, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `path`.

    Raises:
        Busy: another process held it for all of `wait_s`; `what` says in words who that is.
    """
    if not path.exists():
        write_private(path, b"")
    db = sqlite3.connect(path, timeout=wait_s, isolation_level=None)
    try:
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise Busy(f"{what} ({path} is locked).") from error
        yield
    finally:
        db.close()
