"""For all tests: Ctrl-C means what it means on a terminal, also when the run was started in the background, where shells
have it ignored and every child inherits that."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
