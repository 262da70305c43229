"""Where the servers' programs lie: in the wheels that brought them, asked through the wheels' own lists of files."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from common.errors import ServiceFailed


def program(distribution: str, name: str) -> str:
    """The path of a program that an installed wheel brought.

    Raises:
        ServiceFailed: the wheel is not installed, or holds no such program for this machine.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            found = Path(str(file.locate())).resolve()
            if found.is_file():
                return str(found)
    raise ServiceFailed(
        f"The package {distribution} with the server {name} is not installed for this machine.",
        next_step="Install deploy/requirements.txt again; the embedded system needs Linux on x86_64 or aarch64.",
    )
