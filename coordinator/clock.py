"""The clock and the sleep that every part takes as arguments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]
"""The time now, aware, in UTC."""

Sleep: TypeAlias = Callable[[float], object]
"""Waits so many seconds, or until the process is to stop."""
