"""Keep the memory that blocks are made in.

glibc gives buffers over 128 KiB back to the system at once, and each new one is faulted in page by page: for blocks of a
megabyte that was 5 of 16 CPU seconds of a 2 GiB backup (measured, mallopt(3)). With these limits it is 1.7.
"""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_BYTES = 64 * 1024 * 1024
_TRIM_BYTES = 128 * 1024 * 1024


def prepare_process() -> None:
    """Once, before the first thread. Does nothing where the C library is another."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_ARENA_MAX, 2)
