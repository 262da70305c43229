# ruff: noqa: E402
"""Facts about the machine that stand in no configuration file.

Each collector gives a value for JSON, or None where there is nothing to say. Two calls on an unchanged machine give
equal values: everything is sorted, and nothing counts, ages or depends on this process.
"""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import grp
import json
import os
import platform
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from worker.platform.linux import network, programs
from worker.platform.linux.mounts import PSEUDO_PATHS, PSEUDO_TYPES, read_mounts

if TYPE_CHECKING:
    from collections.abc import Callable

Fact = dict[str, object] | list[object] | None

_TIMEOUT_S = 20.0
_LSBLK = "NAME,TYPE,SIZE,RO,RM,FSTYPE,LABEL,UUID,PARTLABEL,PARTTYPE,PARTUUID,MODEL,SERIAL,PKNAME"
_DPKG = "${binary:Package}\\t${Version}\\t${db:Status-Abbrev}\\n"
_RPM = "%{NAME}\\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\\t%{ARCH}\\n"
_FLEETING_BLOCK = ("ram", "loop", "zram", "nbd", "sr", "fd")


def os_fact() -> Fact:
    return {"os_release": dict(platform.freedesktop_os_release()), "hostname": platform.node()}


def kernel() -> Fact:
    name = os.uname()
    return {
        "system": name.sysname,
        "release": name.release,
        "version": name.version,
        "machine": name.machine,
        "cmdline": _text(Path("/proc/cmdline")),
        "modules": sorted(line.split(" ", 1)[0] for line in _text(Path("/proc/modules")).splitlines() if line),
    }


def mounts() -> Fact:
    found: list[object] = []
    for mount in read_mounts():
        below_pseudo = any(f"{mount.point}/".startswith(f"{os.fsdecode(path)}/") for path in PSEUDO_PATHS)
        if mount.kind in PSEUDO_TYPES or below_pseudo:
            continue
        found.append(
            {
                "point": mount.point,
                "source": mount.source,
                "root": mount.root,
                "kind": mount.kind,
                "options": sorted(mount.options.split(",")),
                "super_options": sorted(mount.super_options.split(",")),
            }
        )
    return sorted(found, key=_as_json)


def block_devices() -> Fact:
    base = Path("/sys/block")
    if not base.is_dir():
        return None
    found: dict[str, object] = {}
    for device in sorted(base.iterdir()):
        if device.name.startswith(_FLEETING_BLOCK):
            continue
        found[device.name] = {
            "sectors": _text(device / "size"),
            "read_only": _text(device / "ro"),
            "removable": _text(device / "removable"),
            "rotational": _text(device / "queue/rotational"),
            "model": _text(device / "device/model"),
            "partitions": {
                part.name: {"start": _text(part / "start"), "sectors": _text(part / "size")}
                for part in sorted(device.iterdir())
                if (part / "partition").exists()
            },
        }
    return {"sysfs": found, "lsblk": _lsblk()}


def packages() -> Fact:
    if programs.find("dpkg-query") and Path("/var/lib/dpkg/status").exists():
        return {
            "tool": "dpkg",
            "installed": _lines("dpkg-query", "-W", "-f", _DPKG),
            "selections": _lines("dpkg", "--get-selections"),
            "explicit": _lines("apt-mark", "showmanual"),
            "architectures": _lines("dpkg", "--print-architecture") + _lines("dpkg", "--print-foreign-architectures"),
        }
    if programs.find("rpm"):
        return {
            "tool": "rpm",
            "installed": _lines("rpm", "-qa", "--qf", _RPM),
            "explicit": _lines("dnf", "--cacheonly", "--quiet", "repoquery", "--userinstalled"),
        }
    return None


def units() -> Fact:
    """Unit files and whether they are enabled; nothing where systemd does not run."""
    lines = _lines("systemctl", "list-unit-files", "--no-legend", "--no-pager", "--plain", "--full")
    return [line.split() for line in lines] or None


def accounts() -> Fact:
    """Accounts as the system resolves them (directory services included); no passwords."""
    users = {
        (user.pw_name, user.pw_uid, user.pw_gid, user.pw_gecos, user.pw_dir, user.pw_shell) for user in pwd.getpwall()
    }
    groups = {(group.gr_name, group.gr_gid, tuple(sorted(group.gr_mem))) for group in grp.getgrall()}
    return {
        "users": [list(user) for user in sorted(users)],
        "groups": [[name, gid, list(members)] for name, gid, members in sorted(groups)],
    }


COLLECTORS: dict[str, Callable[[], Fact]] = {
    "os": os_fact,
    "kernel": kernel,
    "mounts": mounts,
    "block-devices": block_devices,
    "network": network.network,
    "packages": packages,
    "units": units,
    "accounts": accounts,
}


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="surrogateescape").strip()
    except OSError:
        return ""


def _lines(*command: str) -> list[str]:
    """Output lines, sorted; none where the program is missing, fails or takes too long."""
    program = programs.find(command[0])
    if program is None:
        return []
    ran = programs.run((program, *command[1:]), timeout_s=_TIMEOUT_S)
    if ran.timed_out or ran.exit_code != 0:
        return []
    return sorted(line for line in ran.output.splitlines() if line.strip())


def _lsblk() -> object:
    program = programs.find("lsblk")
    if program is None:
        return []
    ran = programs.run((program, "--json", "--bytes", "--list", "--output", _LSBLK), timeout_s=_TIMEOUT_S)
    if ran.timed_out or ran.exit_code != 0 or not ran.output.strip():
        return []
    devices = json.loads(ran.output).get("blockdevices", [])
    kept = [device for device in devices if not str(device.get("name", "")).startswith(_FLEETING_BLOCK)]
    return sorted(kept, key=_as_json)


def _as_json(value: object) -> str:
    return json.dumps(value, sort_keys=True)
