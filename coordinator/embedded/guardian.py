"""Ends what an embedded system left behind. A program of the standard library alone, and a function for others.

    python -I -S guardian.py MARK

Every process of a system carries `STATEWARD_RUN_MARK=<mark>` in its environment and hands it on to its children, in
whatever session or process group they are. The guardian waits until its standard input closes, which happens when the
process that started it ends, also by `kill -9`; then it kills whatever carries the mark. It ignores signals: it lives
until its work is done.

A server may overwrite its own environment (Valkey writes its title there), so the guardian is also told the leaders of
process groups, as lines `+pid` and `-pid`. It keeps each with its time of start, and never hits a number used anew.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

MARK_VARIABLE = "STATEWARD_RUN_MARK"
_KILL = 9
_ROUNDS = 50
_PAUSE_S = 0.05


def marked(mark: str) -> list[int]:
    """The processes that carry this mark in their environment, ourselves left out. Ended ones have none."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError), open(f"/proc/{name}/environ", "rb") as environ:  # noqa: PTH123
            if wanted in environ.read().split(b"\0"):
                found.append(int(name))
    return found


def sweep(mark: str) -> int:
    """Kill every process with this mark until none is left; says how many were killed."""
    killed: set[int] = set()
    for _ in range(_ROUNDS):  # a process may fork while we look
        left = marked(mark)
        if not left:
            break
        for pid in left:
            with suppress(OSError):
                os.kill(pid, _KILL)
        killed.update(left)
        time.sleep(_PAUSE_S)  # noqa: TID251 - a program of its own, without a composition root
    return len(killed)


def started_at(pid: int) -> str:
    """When this process started, in the kernel's ticks; empty when there is none."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rpartition(")")[2].split()[19]
    return ""


def main(mark: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.SIG_IGN)
    leaders: dict[int, str] = {}
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            leaders[pid] = started_at(pid)
        else:
            leaders.pop(pid, None)
    for pid, start in leaders.items():
        if start and started_at(pid) == start:
            with suppress(OSError):
                os.killpg(pid, _KILL)  # type: ignore[attr-defined,unused-ignore]
    sweep(mark)


if __name__ == "__main__":
    main(sys.argv[1])
