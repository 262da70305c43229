"""The version of this program."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def program_version() -> str:
    """As installed; a bare checkout has none."""
    try:
        return version("stateward")
    except PackageNotFoundError:
        return "0.0.0"
