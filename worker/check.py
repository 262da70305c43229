"""The prechecks: the machine's own, then space, endpoints and clocks, cheap ones first; and the verdict over all."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.errors import Cancelled, NoSpace, PrecheckFailed, StatewardError
from worker.platform.api import CheckResult, Outcome
from worker.reach import Endpoint, reachability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from worker.platform.api import Cancelled as IsCancelled
    from worker.platform.api import Host

__all__ = ["CheckPlan", "Endpoint", "check", "checks", "clock_skew", "free_space", "raise_on_failure"]

_SKEW_FAILS_S = 300
_SKEW_WARNS_S = 60
_LAST = "package_verification"


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPlan:
    """What is asked besides the machine itself."""

    folder: Path
    """Where the worker keeps its cache and its scratch files."""
    needed_bytes: int = 0
    """Free space wanted there; 0 leaves the question out."""
    endpoints: tuple[Endpoint, ...] = ()
    remote_time: Callable[[], datetime] | None = None
    """The time on the other side (store's or coordinator's Date), aware. May raise OSError or a StatewardError."""
    now: Callable[[], datetime] | None = None
    """This machine's clock, aware; asked together with `remote_time`."""
    verify_timeout_s: float = 120.0
    """Time limit of the verification of installed packages; 0 leaves it out."""
    cancelled: IsCancelled = field(default=_never)


def check(host: Host, plan: CheckPlan) -> list[CheckResult]:
    """Run all of them.

    Raises:
        Cancelled: `plan.cancelled` said so; a running program is ended.
    """
    return [run() for _, run in checks(host, plan)]


def checks(host: Host, plan: CheckPlan) -> Iterator[tuple[str, Callable[[], CheckResult]]]:
    """(name, run) in order, so that progress can be shown. A check never raises but `Cancelled`: what it could not find
    out is a warning. The verification of packages, which may take minutes, is last."""
    slow: list[tuple[str, Callable[[], CheckResult]]] = []
    for name, run in host.prechecks(verify_timeout_s=plan.verify_timeout_s, cancelled=plan.cancelled):
        if name == _LAST:
            slow.append((name, _timed(name, run, plan)))
        else:
            yield name, _timed(name, run, plan)
    if plan.needed_bytes > 0:
        yield "free_space", _timed("free_space", lambda: free_space(host, plan.folder, plan.needed_bytes), plan)
    for endpoint in plan.endpoints:
        name = f"reach_{endpoint.name}"
        yield name, _timed(name, lambda endpoint=endpoint: reachability(endpoint), plan)  # type: ignore[misc]
    if plan.remote_time is not None and plan.now is not None:
        now, remote_time = plan.now, plan.remote_time
        yield "clock_skew", _timed("clock_skew", lambda: clock_skew(now, remote_time), plan)
    yield from slow


def _timed(name: str, run: Callable[[], CheckResult], plan: CheckPlan) -> Callable[[], CheckResult]:
    def timed() -> CheckResult:
        if plan.cancelled():
            raise Cancelled("Cancelled during the prechecks.")
        started = time.monotonic()
        try:
            result = run()
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001 - an answer that cannot be had must not end a backup
            result = CheckResult(name=name, outcome=Outcome.WARN, reason=f"Undetermined: {error}")
        return dataclasses.replace(result, name=name, seconds=time.monotonic() - started)

    return timed


def free_space(host: Host, folder: Path, needed_bytes: int) -> CheckResult:
    name = "free_space"
    free = host.free_bytes(folder)
    if free >= needed_bytes:
        return CheckResult(name=name, outcome=Outcome.PASS, reason=f"{free:,} bytes are free for {folder}.")
    return CheckResult(
        name=name,
        outcome=Outcome.FAIL,
        reason=f"The volume of {folder} has {free:,} bytes free and {needed_bytes:,} are needed.",
        next_step="Free space on this volume, or name another folder.",
    )


def clock_skew(now: Callable[[], datetime], remote_time: Callable[[], datetime]) -> CheckResult:
    name = "clock_skew"
    before = now()
    try:
        remote = remote_time()
    except (OSError, ValueError, StatewardError) as error:
        return CheckResult(
            name=name, outcome=Outcome.WARN, reason=f"Undetermined: the other side's time is not known: {error}"
        )
    here = before + (now() - before) / 2  # the answer was given somewhere in between
    skew = (here - remote).total_seconds()
    text = f"This machine's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    step = "Set the clock, and let a time service keep it."
    if abs(skew) > _SKEW_FAILS_S:
        return CheckResult(
            name=name, outcome=Outcome.FAIL, reason=f"{text}: stores refuse such requests.", next_step=step
        )
    if abs(skew) > _SKEW_WARNS_S:
        return CheckResult(name=name, outcome=Outcome.WARN, reason=f"{text}.", next_step=step)
    return CheckResult(name=name, outcome=Outcome.PASS, reason=f"{text}, which is near enough.")


def raise_on_failure(results: Iterable[CheckResult]) -> None:
    """The verdict over all.

    Raises:
        NoSpace: space alone is missing.
        PrecheckFailed: anything else failed; every failure is named, the first one's next step is given.
    """
    failed = [result for result in results if result.outcome is Outcome.FAIL]
    if not failed:
        return
    message = " ".join(result.reason for result in failed)
    kind = NoSpace if all(result.name == "free_space" for result in failed) else PrecheckFailed
    raise kind(message, next_step=failed[0].next_step or None)
