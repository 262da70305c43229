"""A process to be killed: forks, for each line it reads, a child that backs up, and says the child's id.

    python killed_child.py VAULT STATE SOURCE

Everything is imported before the first fork, so a kill some milliseconds later hits the backup and not Python's start.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import common.vault.packs
import worker.upload
from common.contracts.jobs import BackupSpec
from common.vault.location import VaultLocation
from common.vault.stores import DirectoryStore
from worker.backup import BackupDeps, run_backup
from worker.platform import this_host
from worker.platform.api import SourceRoot
from worker.platform.fake import FakeHost
from worker.standalone import find_pinned, plan_backup, receive

PACK = 200_000


def nothing(*_ignored: object) -> None:
    pass


def now() -> datetime:
    return datetime.now(UTC)


def back_up(vault: Path, state: Path, source: Path) -> None:
    common.vault.packs.MIN_CLOSE = PACK
    common.vault.packs.MAX_CLOSE = PACK + 20_000
    worker.upload.BRACKET_PACKS = 6
    location = VaultLocation(scheme="file", path=vault)
    store = DirectoryStore(vault)
    pinned, opened = find_pinned(state, location, store)
    request, chain = plan_backup(store, pinned, opened, spec=BackupSpec(), state=state)
    inner = this_host()
    host = FakeHost(inner=inner, files=inner.files, roots=(SourceRoot(real=os.fsencode(source), tree=b""),))
    deps = BackupDeps(
        store=store,
        host=host,
        pinned=pinned,
        state=state,
        clock=now,
        monotonic=time.monotonic,
        random_bytes=secrets.token_bytes,
        progress=nothing,
        cancelled=nothing,
        before_commit=nothing,
    )
    run_backup(request, deps)
    receive(store, pinned, request, chain, now)


def main() -> None:
    vault, state, source = map(Path, sys.argv[1:])
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            back_up(vault, state, source)
            os._exit(0)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
