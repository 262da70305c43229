# ruff: noqa: E402
"""The machine's own prechecks: is it supported, may we read, does it wait for a reboot, are its packages whole."""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from worker.platform.api import CheckResult, Outcome
from worker.platform.linux import packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.platform.api import Cancelled, HostFacts

_ROOT = Path("/")
_NUMBERS = re.compile(r"\d+")
_VERSION = re.compile(r"\d+(?:[.+~-]\d+)*")


def prechecks(
    facts: HostFacts, *, verify_timeout_s: float, cancelled: Cancelled
) -> Iterator[tuple[str, Callable[[], CheckResult]]]:
    yield "supported_os", partial(supported_os, facts)
    yield "rights", partial(rights, facts)
    yield "pending_reboot", partial(pending_reboot, facts.kernel)
    if verify_timeout_s > 0:
        yield "package_verification", partial(packages.verification, timeout_s=verify_timeout_s, cancelled=cancelled)


def supported_os(facts: HostFacts, system: str = sys.platform) -> CheckResult:
    name = "supported_os"
    if system != "linux":
        return CheckResult(
            name=name,
            outcome=Outcome.FAIL,
            reason=f"This worker runs on Linux and Windows Server, not on {system}.",
            next_step="Run the worker on a supported system.",
        )
    text = f"{facts.os_name} {facts.os_version}".strip()
    return CheckResult(name=name, outcome=Outcome.PASS, reason=f"{text}, kernel {facts.kernel}, {facts.architecture}.")


def rights(facts: HostFacts) -> CheckResult:
    if facts.elevated:
        return CheckResult(name="rights", outcome=Outcome.PASS, reason="This process may read every file.")
    return CheckResult(
        name="rights",
        outcome=Outcome.WARN,
        reason="This process is an ordinary user's: files that only root may read will be missing, each named.",
        next_step="Run the worker as root for a whole system state.",
    )


def pending_reboot(running: str, root: Path = _ROOT) -> CheckResult:
    name = "pending_reboot"
    step = "Reboot at the next opportunity; a restored state is that of after the reboot."
    if (root / "run/reboot-required").exists():
        named = _names(root / "run/reboot-required.pkgs")
        reason = "The system says that a reboot is required" + (f" by {named}." if named else ".")
        return CheckResult(name=name, outcome=Outcome.WARN, reason=reason, next_step=step)
    if _is_container(root):
        return CheckResult(name=name, outcome=Outcome.PASS, reason="This is a container: its kernel is the host's.")
    kernels = _installed_kernels(root)
    if not kernels:
        return CheckResult(name=name, outcome=Outcome.PASS, reason="No kernel is installed here, so none waits.")
    newest = max(kernels, key=_version)
    if _version(newest) > _version(running):
        reason = f"Kernel {newest} is installed and {running} is running."
        return CheckResult(name=name, outcome=Outcome.WARN, reason=reason, next_step=step)
    return CheckResult(name=name, outcome=Outcome.PASS, reason="Nothing waits for a reboot.")


def _names(file: Path, limit: int = 5) -> str:
    try:
        names = sorted(set(file.read_text(errors="replace").split()))
    except OSError:
        return ""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _is_container(root: Path) -> bool:
    return any((root / mark).exists() for mark in ("run/systemd/container", ".dockerenv", "run/.containerenv"))


def _installed_kernels(root: Path) -> set[str]:
    found = {file.name.removeprefix("vmlinuz-") for file in _listed(root / "boot") if file.name.startswith("vmlinuz-")}
    for base in ("lib/modules", "usr/lib/modules"):
        # A directory that an old kernel left behind has no list of modules.
        found |= {folder.name for folder in _listed(root / base) if (folder / "modules.dep").exists()}
    return {name for name in found if _VERSION.match(name)}


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _version(release: str) -> list[int]:
    match = _VERSION.match(release)
    return [int(number) for number in _NUMBERS.findall(match[0])] if match else []
