"""Cutting: content-defined chunking (FastCDC 2020), so that an insertion moves two cut points and not all of them.

The gear table is keyed by the domain. Keyed gear tables fall to whoever sees block sizes (eprint 2025/532, 2025/558);
here nobody does: packs are opaque and close at random sizes, indexes are sealed. Never log or export a block's length.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyfastcdc

from common.errors import ConfigInvalid
from common.vault.documents import Chunking

ALGORITHM = "fastcdc-2020"


class Cutter:
    """Cuts for one domain. Not for several threads at once."""

    def __init__(self, chunking: Chunking, seed: int) -> None:
        """Raises ConfigInvalid where only the slow Python version of the library is installed, or for another algorithm."""
        if not pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy"):
            raise ConfigInvalid(
                "The library pyfastcdc is installed without its native part.",
                next_step="Install a wheel of pyfastcdc for this platform.",
            )
        if chunking.algorithm != ALGORITHM:
            raise ConfigInvalid(f"The vault is cut by {chunking.algorithm}, which this program does not know.")
        self._fastcdc = pyfastcdc.FastCDC(
            chunking.average_size,
            min_size=chunking.min_size,
            max_size=chunking.max_size,
            normalized_chunking=chunking.normalization,  # type: ignore[arg-type]  # 0 … 3
            seed=seed,
        )

    def cut(self, data: memoryview, *, final: bool) -> Iterator[tuple[int, int]]:
        """(offset, length) of blocks from the start of `data`. Unless `final`, the last one is left out: it may go on in
        the bytes to come, so put its bytes in front of them."""
        before: tuple[int, int] | None = None
        for chunk in self._fastcdc.cut_buf(data):
            if before is not None:
                yield before
            before = (chunk.offset, chunk.length)
        if final and before is not None:
            yield before
