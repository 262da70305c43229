"""Helpers of other test folders, importable here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[2] / "fault"), str(Path(__file__).parents[1] / "worker")]
