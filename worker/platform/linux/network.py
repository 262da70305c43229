# ruff: noqa: E402
"""Network interfaces, addresses and routes from `/sys` and `/proc`, without counters, lifetimes and states."""

from __future__ import annotations

import sys

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import ipaddress
import re
from pathlib import Path

_FLEETING = ("veth", "tap", "vnet")
_LOCAL_V4 = re.compile(r"\|-- (?P<address>[0-9.]+)\n\s+/32 host LOCAL")
_V6_PERMANENT = 0x80
_ROUTE_COLUMNS = 8
_ROUTE6_COLUMNS = 10
_V6_COLUMNS = 6
_UP = 0x1


def network(root: Path = Path("/")) -> dict[str, object] | list[object] | None:
    interfaces = root / "sys/class/net"
    if not interfaces.is_dir():
        return None
    return {
        "interfaces": {
            folder.name: {
                "address": _text(folder / "address"),
                "mtu": _text(folder / "mtu"),
                "type": _text(folder / "type"),
            }
            for folder in sorted(interfaces.iterdir())
            if not folder.name.startswith(_FLEETING)
        },
        "ipv4": sorted({match["address"] for match in _LOCAL_V4.finditer(_text(root / "proc/net/fib_trie"))}),
        "ipv6": _ipv6(_text(root / "proc/net/if_inet6")),
        "routes_ipv4": _routes_ipv4(_text(root / "proc/net/route")),
        "routes_ipv6": _routes_ipv6(_text(root / "proc/net/ipv6_route")),
    }


def _ipv6(text: str) -> list[list[str]]:
    """(interface, address) of what was configured for good; temporary addresses come and go."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == _V6_COLUMNS and int(fields[4], 16) & _V6_PERMANENT:
            found.append([fields[5], f"{_v6(fields[0])}/{int(fields[2], 16)}"])
    return sorted(found)


def _routes_ipv4(text: str) -> list[list[str]]:
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= _ROUTE_COLUMNS and not fields[0].startswith(_FLEETING):
            mask = int(fields[7], 16).bit_count()
            found.append([fields[0], f"{_v4(fields[1])}/{mask}", _v4(fields[2]), f"metric {fields[6]}"])
    return sorted(found)


def _routes_ipv6(text: str) -> list[list[str]]:
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != _ROUTE6_COLUMNS or fields[9].startswith((*_FLEETING, "lo")) or not int(fields[8], 16) & _UP:
            continue
        to = f"{_v6(fields[0])}/{int(fields[1], 16)}"
        found.append([fields[9], to, _v6(fields[4]), f"metric {int(fields[5], 16)}"])
    return sorted(found)


def _v4(little_endian: str) -> str:
    return str(ipaddress.IPv4Address(bytes.fromhex(little_endian)[::-1]))


def _v6(digits: str) -> str:
    return str(ipaddress.IPv6Address(bytes.fromhex(digits)))


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="surrogateescape").strip()
    except OSError:
        return ""
