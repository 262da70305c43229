"""The process that a job runs in, seen from the agent.

It leads a session of its own (Ctrl-C reaches the agent alone) and holds the reading end of a pipe from the agent: when
the agent asks it to stop, or dies in whatever way, the pipe ends, and the process stops and leaves its job resumable.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import psutil


class JobProcess(Protocol):
    def wait(self, timeout_s: float) -> int | None:
        """Its exit code; None when it still runs after `timeout_s`."""

    def stop(self) -> None:
        """Ask it to stop soon and leave the job resumable. May be called twice."""

    def kill(self) -> None:
        """End it, and what it started, at once."""


Spawn = Callable[[str, str], JobProcess]
"""(job id, instance for its requests) → the running process."""


class _Spawned:
    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        if self._popen.stdin:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._popen.pid)
            for member in (*family.children(recursive=True), family):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        self.stop()


def spawner(program: Sequence[str], state: Path, folder: Path) -> Spawn:
    """`program` is the command line of `stateward-worker`, started in `folder`."""
    state = state.resolve()

    def spawn(job_id: str, instance: str) -> JobProcess:
        command = [*program, "run-job", job_id, "--instance", instance, "--state", str(state)]
        return _Spawned(subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, start_new_session=True))

    return spawn


def watch_pipe(pipe: io.RawIOBase, ended: Callable[[], None]) -> None:
    """In the job's process: call `ended` once the agent closes the pipe, or is gone. Returns at once.

    The pipe is unbuffered: a buffer's lock, held by a waiting thread, would break the interpreter's end.
    """

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while pipe.read(1):
                pass
        ended()

    threading.Thread(target=wait, name="agent-pipe", daemon=True).start()
