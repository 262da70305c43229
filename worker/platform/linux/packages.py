# ruff: noqa: E402
"""`dpkg --verify` and `rpm -Va`: whether installed files are what their packages brought.

The exit code decides nothing (dpkg ends with 0 whatever it found); the lines do. A changed configuration file is
what an administrator does for a living; documentation is left out of small images on purpose. Anything else that is
changed or missing is named.
"""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.platform.api import CheckResult, Outcome
from worker.platform.linux import programs

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.platform.api import Cancelled

NAME = "package_verification"
_NAMED = 10
_LINE = re.compile(r"^(?P<flags>missing|[A-Za-z0-9.?]{8,9}) +(?:(?P<kind>[a-z]) +)?(?P<path>/.*)$")
_DOCUMENTATION = re.compile(
    r"/usr/(?:share/(?:doc|man|info|locale|lintian|help|gtk-doc|bug)|lib/python3?/.*__pycache__)/"
)
_CONTENT_FLAGS = ("5", "S", "L", "D")
_TOOLS = ((Path("/var/lib/dpkg/status"), ("dpkg", "--verify")), (None, ("rpm", "-Va", "--nomtime")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    changed: tuple[str, ...]
    """Changed or missing files that are neither configuration nor documentation."""
    configuration: int
    documentation: int


def verification(
    *, timeout_s: float, cancelled: Cancelled, find: Callable[[str], str | None] = programs.find
) -> CheckResult:
    """Raises Cancelled when the caller's job was."""
    command = next((tool for mark, tool in _TOOLS if find(tool[0]) and (mark is None or mark.exists())), None)
    if command is None:
        return _warn("Not applicable: neither dpkg nor rpm is here.", "")
    program = find(command[0]) or command[0]
    try:
        ran = programs.run((program, *command[1:]), timeout_s=timeout_s, cancelled=cancelled)
    except OSError as error:
        return _warn(
            f"Undetermined: `{command[0]}` could not be started: {error.strerror}.", "Repair the package tool."
        )
    text = " ".join(command)
    if ran.timed_out:
        found = read(ran.output)
        so_far = f" {len(found.changed)} changed files until then." if found.changed else ""
        return _warn(f"Undetermined: `{text}` did not end within {timeout_s:g} s.{so_far}", "Allow it more time.")
    if not ran.output.strip() and ran.exit_code not in (0, 1):
        why = (ran.errors.strip().splitlines() or [f"exit code {ran.exit_code}"])[0]
        return _warn(f"Undetermined: `{text}` failed: {why}.", "Repair the package database.")
    return judge(read(ran.output), text)


def read(output: str) -> Verified:
    """The lines of either tool; what is not such a line is not a verdict about a file."""
    changed: list[str] = []
    configuration = documentation = 0
    for line in output.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        missing = match["flags"] == "missing"
        if match["kind"] in ("c", "g"):
            configuration += 1
        elif match["kind"] == "d" or (missing and _DOCUMENTATION.match(match["path"])):
            documentation += 1
        elif missing or any(flag in match["flags"] for flag in _CONTENT_FLAGS):
            changed.append(match["path"])
    return Verified(changed=tuple(changed), configuration=configuration, documentation=documentation)


def judge(found: Verified, tool: str) -> CheckResult:
    notes = []
    if found.configuration:
        notes.append(f"{found.configuration} changed configuration files, which is normal")
    if found.documentation:
        notes.append(f"{found.documentation} documentation files left out")
    note = f" ({'; '.join(notes)})" if notes else ""
    if not found.changed:
        reason = f"Installed files are what their packages brought{note}."
        return CheckResult(name=NAME, outcome=Outcome.PASS, reason=reason)
    count = len(found.changed)
    more = f" and {count - _NAMED} more" if count > _NAMED else ""
    named = ", ".join(found.changed[:_NAMED])
    return _warn(
        f"{count} installed files differ from their packages: {named}{more}{note}.",
        f"Look at them with `{tool}`, and reinstall their packages if nobody changed them on purpose.",
    )


def _warn(reason: str, next_step: str) -> CheckResult:
    return CheckResult(name=NAME, outcome=Outcome.WARN, reason=reason, next_step=next_step)
