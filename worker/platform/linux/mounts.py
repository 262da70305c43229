# ruff: noqa: E402
"""`/proc/self/mountinfo`, and which file systems show the kernel rather than a disk."""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import os
import re
from dataclasses import dataclass
from pathlib import Path

PSEUDO_TYPES = frozenset(
    [
        "proc",
        "sysfs",
        "devtmpfs",
        "devpts",
        "cgroup",
        "cgroup2",
        "securityfs",
        "debugfs",
        "tracefs",
        "pstore",
        "bpf",
        "configfs",
        "fusectl",
        "mqueue",
        "hugetlbfs",
        "autofs",
        "binfmt_misc",
        "rpc_pipefs",
        "efivarfs",
        "nsfs",
        "selinuxfs",
        "smackfs",
        "fuse.lxcfs",
        "fuse.gvfsd-fuse",
        "fuse.portal",
    ]
)
PSEUDO_PATHS = frozenset((b"/proc", b"/sys", b"/dev", b"/run"))
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    device: int
    root: str
    point: str
    options: str
    kind: str
    source: str
    super_options: str


def read_mounts(proc: Path = Path("/proc")) -> list[Mount]:
    """Mounts this process sees, in mount order; none when `/proc` is not there."""
    try:
        text = (proc / "self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return []
    return [mount for line in text.splitlines() if (mount := _parse(line)) is not None]


def _parse(line: str) -> Mount | None:
    left, separator, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 3:  # noqa: PLR2004 - the kernel's documented columns
        return None
    major, _, minor = fields[2].partition(":")
    return Mount(
        device=os.makedev(int(major), int(minor)),
        root=_plain(fields[3]),
        point=_plain(fields[4]),
        options=fields[5],
        kind=rest[0],
        source=_plain(rest[1]),
        super_options=rest[2],
    )


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
