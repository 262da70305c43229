"""Keeps our servers running: starts, watches, restarts and ends child processes, and leaves none behind.

Invariants:

1. When the process that supervises ends, however it ends (`kill -9` too), every process it started ends, and theirs.
   Three things see to it: each child asks the kernel to die with us (`launcher`), the `guardian` kills whatever carries
   the run's mark when its pipe to us closes, and the next run sweeps the mark that a run before it left.
2. A service that ends by itself is started again with the very same arguments, so on the same port and data. One that
   keeps ending soon after its start is given up: it is `FAILED`, and `wait` says so as an error that names its log.
3. Services end in the reverse order of their start, each within its own time; what is left of their groups is killed.

The kernel counts a *thread* as a child's parent, so every start is done by one thread that lives until all have ended.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from common.errors import ServiceFailed
from common.privatefiles import write_private
from coordinator.embedded import guardian, launcher, oscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

_POLL_S: Final = 0.1
_KILL_WAIT_S: Final = 10.0
_GUARDIAN_WAIT_S: Final = 30.0
_LOG_LIMIT_BYTES: Final = 10 << 20


class ServiceState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # it ended and is started again after its back-off
    STOPPED = "stopped"
    FAILED = "failed"  # given up


def _nothing() -> None:
    """Tidy nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What to run, and how to tell that it runs. `environment` is all that the process gets (beside the run's mark)."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ready: Callable[[], bool]  # asked until it says yes; must answer within a few seconds and raise nothing
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ready_within_s: float = 60.0
    tidy: Callable[[], None] = _nothing  # before each start and after the end: removes what a killed one leaves
    stop_within_s: float = 10.0  # between the request to end and the kill


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    name: str
    pid: int | None
    state: ServiceState
    restarts: int
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    first_delay_s: float = 0.2
    max_delay_s: float = 10.0
    quick_s: float = 30.0  # an end within this time after the start counts as a quick failure
    max_quick_failures: int = 5

    def delay_s(self, quick_failures: int) -> float:
        return float(min(self.first_delay_s * 2 ** max(quick_failures - 1, 0), self.max_delay_s))


class _Managed:
    """One service and its present process. Changed under the supervisor's lock alone."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.process: subprocess.Popen[bytes] | None = None
        self.state = ServiceState.STARTING
        self.started_at = 0.0
        self.restart_at = 0.0
        self.restarts = 0
        self.quick_failures = 0

    def status(self) -> ServiceStatus:
        running = self.state in (ServiceState.STARTING, ServiceState.READY)
        return ServiceStatus(
            name=self.service.name,
            pid=self.process.pid if self.process and running else None,
            state=self.state,
            restarts=self.restarts,
            log=self.service.log,
        )


class Supervisor:
    """Runs services. Use as a context: leaving it ends them all.

    `run_folder` keeps the mark of this run; the caller holds the lock of the data folder it lies in.
    """

    def __init__(
        self, run_folder: Path, *, policy: RestartPolicy | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy or RestartPolicy()
        self._clock = clock
        self._mark = _new_mark(run_folder / "mark")
        self._lock = threading.RLock()
        self._managed: dict[str, _Managed] = {}
        self._given_up: ServiceFailed | None = None
        self._something_failed = threading.Event()
        self._closing = threading.Event()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starter")
        self._guardian = self._starter.submit(_start_guardian, self._mark).result()
        self._monitor = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._monitor.start()

    def start(self, service: Service) -> None:
        """Start a service and return when it is ready.

        Raises:
            ServiceFailed: it ended, or was not ready in time. It has ended then, and is not started again.
        """
        managed = _Managed(service)
        with self._lock:
            if service.name in self._managed:
                msg = f"{service.name} is started already"
                raise ValueError(msg)
        self._spawn(managed)
        try:
            self._await_first_ready(managed)
        except BaseException:
            self._end(managed)
            raise
        with self._lock:
            managed.state = ServiceState.READY
            self._managed[service.name] = managed

    def stop(self, name: str) -> None:
        """End one service; it is not started again."""
        with self._lock:
            managed = self._managed.pop(name)
            managed.state = ServiceState.STOPPED
        self._end(managed)

    def status(self) -> tuple[ServiceStatus, ...]:
        """The services in the order of their start."""
        with self._lock:
            return tuple(managed.status() for managed in self._managed.values())

    def wait(self, timeout_s: float | None = None) -> None:
        """Return after `timeout_s` seconds, or raise as soon as a service is given up.

        Raises:
            ServiceFailed: names the service and its log.
        """
        self._something_failed.wait(timeout_s)
        if self._given_up is not None:
            raise self._given_up

    def close(self) -> None:
        """End all services in the reverse order of their start, then whatever else carries our mark."""
        with self._lock:
            names = list(self._managed)
        try:
            for name in reversed(names):
                self.stop(name)
        finally:
            self._closing.set()
            self._monitor.join()
            self._starter.shutdown()
            _end_guardian(self._guardian)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── one process ──────────────────────────────────────────────────────────────────────────────────────────────

    def _spawn(self, managed: _Managed) -> None:
        service = managed.service
        service.tidy()
        process = self._starter.submit(_start_process, service, self._mark).result()
        managed.process = process
        self._tell_guardian("+", process.pid)
        managed.started_at = self._clock()
        managed.state = ServiceState.STARTING

    def _await_first_ready(self, managed: _Managed) -> None:
        service, process = managed.service, managed.process
        assert process is not None  # noqa: S101
        while not service.ready():
            if process.poll() is not None:
                raise _failed(service, f"ended with code {process.returncode} before it answered")
            if self._clock() - managed.started_at > service.ready_within_s:
                raise _failed(service, f"did not answer within {service.ready_within_s:.0f} seconds")
            self._closing.wait(_POLL_S)
        if process.poll() is not None:  # something else answered
            raise _failed(service, f"ended with code {process.returncode}")

    def _end(self, managed: _Managed) -> None:
        process = managed.process
        if process is None:
            return
        if process.poll() is None:
            oscalls.end_group(process.pid, hard=False)
            with suppress(subprocess.TimeoutExpired):
                process.wait(managed.service.stop_within_s)
        oscalls.end_group(process.pid, hard=True)
        process.wait(_KILL_WAIT_S)
        self._tell_guardian("-", process.pid)
        managed.service.tidy()

    def _tell_guardian(self, sign: str, pid: int) -> None:
        with self._lock, suppress(OSError, ValueError):  # a dead one is replaced by the watch, and told all again
            assert self._guardian.stdin is not None  # noqa: S101
            self._guardian.stdin.write(f"{sign}{pid}\n".encode())
            self._guardian.stdin.flush()

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _watch(self) -> None:
        while not self._closing.wait(_POLL_S):
            if self._guardian.poll() is not None:
                self._replace_guardian()
            with self._lock:
                present = list(self._managed.values())
            for managed in present:
                asked = managed.state is ServiceState.STARTING and managed.service.ready()  # outside the lock: it waits
                with self._lock:
                    self._look_at(managed, answers=asked)

    def _replace_guardian(self) -> None:
        with self._lock:
            _end_guardian(self._guardian)
            self._guardian = self._starter.submit(_start_guardian, self._mark).result()
            running = [managed.process.pid for managed in self._managed.values() if managed.process]
        for pid in running:
            self._tell_guardian("+", pid)

    def _look_at(self, managed: _Managed, *, answers: bool) -> None:
        if managed.state in (ServiceState.STOPPED, ServiceState.FAILED):
            return
        now = self._clock()
        if managed.state is ServiceState.WAITING:
            if now >= managed.restart_at:
                managed.restarts += 1
                self._spawn(managed)
            return
        process = managed.process
        assert process is not None  # noqa: S101
        if process.poll() is not None:
            oscalls.end_group(process.pid, hard=True)  # its children would hold the port and the data
            self._tell_guardian("-", process.pid)
            self._back_off(managed, now, f"ended with code {process.returncode}")
        elif managed.state is ServiceState.STARTING:
            if answers:
                managed.state = ServiceState.READY
            elif now - managed.started_at > managed.service.ready_within_s:
                oscalls.end_group(process.pid, hard=True)
                process.wait(_KILL_WAIT_S)
                self._back_off(managed, now, f"did not answer within {managed.service.ready_within_s:.0f} seconds")

    def _back_off(self, managed: _Managed, now: float, reason: str) -> None:
        was_up = managed.state is ServiceState.READY and now - managed.started_at > self._policy.quick_s
        managed.quick_failures = 1 if was_up else managed.quick_failures + 1
        if managed.quick_failures > self._policy.max_quick_failures:
            managed.state = ServiceState.FAILED
            self._given_up = _failed(managed.service, f"{reason}, {managed.quick_failures} times in a row")
            self._something_failed.set()
            return
        managed.state = ServiceState.WAITING
        managed.restart_at = now + self._policy.delay_s(managed.quick_failures)


def _failed(service: Service, what: str) -> ServiceFailed:
    return ServiceFailed(f"The server {service.name} {what}.", next_step=f"Read the end of {service.log}.")


def _new_mark(path: Path) -> str:
    """End what a run before us left behind, and begin a mark of our own."""
    if path.exists():
        guardian.sweep(path.read_text().strip() or "none")
    mark = secrets.token_hex(16)
    write_private(path, mark + "\n")
    return mark


def _start_process(service: Service, mark: str) -> subprocess.Popen[bytes]:
    if service.log.exists() and service.log.stat().st_size > _LOG_LIMIT_BYTES:
        service.log.replace(service.log.with_name(service.log.name + ".1"))
    log = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            (sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *service.argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=service.cwd,
            env={**service.environment, guardian.MARK_VARIABLE: mark},
            start_new_session=True,  # Ctrl-C on a terminal reaches us alone, and we end it in order
        )
    finally:
        os.close(log)


def _start_guardian(mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        (sys.executable, "-I", "-S", guardian.__file__, mark),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        start_new_session=True,
    )


def _end_guardian(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101
    with suppress(OSError):
        process.stdin.close()
    process.wait(_GUARDIAN_WAIT_S)
