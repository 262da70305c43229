"""Loopback ports: found free, remembered by the caller, checked before use.

A port found free may be taken by another program before its server binds it. Nobody can close that gap from outside,
so the starters of the servers try again with other ports when a server ends before it answers (`start_on_free_ports`).
"""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING

from common.errors import PortInUse, ServiceFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LOOPBACK = "127.0.0.1"
GRPC_OFFSET = 10_000
_FIRST, _END = 18_000, 32_768  # Linux takes the ports of outgoing connections from 32768 on
_TRIES = 400
_START_TRIES = 3


def is_free(port: int) -> bool:
    """Whether a server could bind this loopback port now. A port in TIME_WAIT is free: servers bind it all the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def require_free(port: int, *, purpose: str, next_step: str | None = None) -> int:
    """The port that a person named for `purpose`, or PortInUse."""
    if not 0 < port < 65_536 or not is_free(port):  # noqa: PLR2004
        raise PortInUse(
            f"Port {port} of {LOOPBACK}, named for {purpose}, is in use or cannot be bound.", next_step=next_step
        )
    return port


def require_known(port: int, *, purpose: str) -> int:
    """The port of the run before, whose address the enrolled hosts keep, or PortInUse."""
    step = "End the program that uses it: the enrolled hosts know this address."
    return require_free(port, purpose=f"{purpose} since its first run", next_step=step)


def find_free(count: int = 1, *, also_free_at: int = 0, avoid: Iterable[int] = ()) -> tuple[int, ...]:
    """`count` different free loopback ports; with `also_free_at` each port + that number is free as well."""
    found: list[int] = []
    taken = set(avoid)
    for _ in range(_TRIES * count):
        port = _FIRST + secrets.randbelow(_END - _FIRST - also_free_at)
        wanted = {port, port + also_free_at}
        if wanted & taken or not all(is_free(each) for each in wanted):
            continue
        taken |= wanted
        found.append(port)
        if len(found) == count:
            return tuple(found)
    raise PortInUse(f"No {count} free ports were found on {LOOPBACK} between {_FIRST} and {_END}.")


def all_free(ports: Iterable[int]) -> bool:
    return all(is_free(port) for port in ports)


def start_on_free_ports(
    choose: Callable[[], tuple[int, ...]], start: Callable[[tuple[int, ...]], None]
) -> tuple[int, ...]:
    """Start a server on ports that `choose` finds; when it fails and one of them was taken meanwhile, on others.

    Raises:
        ServiceFailed: it failed although its ports were free, or three times.
    """
    for remaining in reversed(range(_START_TRIES)):
        ports = choose()
        try:
            start(ports)
        except ServiceFailed:
            if not remaining or all_free(ports):
                raise
            continue
        return ports
    raise AssertionError
