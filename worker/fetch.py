"""Fetching blocks for a restore: many at once, neighbours in one request, each checked and opened.

Damage is contained: a block that no version of its pack holds whole is an error of that block alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from common.errors import Damaged
from common.vault import names
from common.vault.blocks import block_aad, open_block
from common.vault.reading import read_matching
from common.vault.store import Store
from common.vault.tree import Place

GAP = 256 * 1024
"""Blocks with less than this between them are read in one request."""
LONGEST = 8 * 1024 * 1024

Fetched = bytes | Damaged


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Blocks of one pack that one request reads."""

    pack: str
    places: tuple[Place, ...]

    @property
    def start(self) -> int:
        return self.places[0].offset

    @property
    def end(self) -> int:
        return max(place.offset + place.length for place in self.places)


class Fetcher:
    """Use it in a `with`: leaving ends its threads."""

    def __init__(self, store: Store, *, vault_id: str, parallel: int, cancelled: Callable[[], None]) -> None:
        self._store = store
        self._aad = block_aad(vault_id)
        self._cancelled = cancelled
        self._pool = ThreadPoolExecutor(parallel, "fetch")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, places: Iterable[Place]) -> Callable[[], dict[bytes, Fetched]]:
        """Begin to fetch; call the result to wait for the opened blocks by id. Errors of the store are raised there."""
        futures = [self._pool.submit(self._fetch, stretch) for stretch in _stretches(places)]

        def collect() -> dict[bytes, Fetched]:
            return _collect(futures)

        return collect

    def one(self, place: Place) -> bytes:
        """Raises Damaged."""
        found = self._open_alone(_pack(place), place)
        if isinstance(found, Damaged):
            raise found
        return found

    def _fetch(self, stretch: _Stretch) -> dict[bytes, Fetched]:
        self._cancelled()
        try:
            data = memoryview(self._store.get(stretch.pack, offset=stretch.start, length=stretch.end - stretch.start))
        except Damaged:
            data = memoryview(b"")
        found: dict[bytes, Fetched] = {}
        for place in stretch.places:
            at = place.offset - stretch.start
            try:
                found[place.id] = self._opened(place, data[at : at + place.length])
            except Damaged:
                found[place.id] = self._open_alone(stretch.pack, place)
        return found

    def _open_alone(self, pack: str, place: Place) -> Fetched:
        """From whichever version of the pack holds the block."""
        try:
            return read_matching(
                self._store, pack, lambda data: self._opened(place, data), offset=place.offset, length=place.length
            )
        except Damaged as error:
            return Damaged(f"{pack}: {error.message}")

    def _opened(self, place: Place, data: bytes | memoryview) -> bytes:
        plain = open_block(data, place.key, place.id, aad=self._aad)
        if len(plain) != place.plain_size:
            raise Damaged(f"Block {place.id.hex()[:16]} does not have the size of its entry.")
        return plain


def _collect(futures: list[Future[dict[bytes, Fetched]]]) -> dict[bytes, Fetched]:
    found: dict[bytes, Fetched] = {}
    for future in futures:
        found.update(future.result())
    return found


def _stretches(places: Iterable[Place]) -> list[_Stretch]:
    """Group by pack, in order of offset, joining neighbours."""
    wanted = sorted({(_pack(place), place.offset, place.id): place for place in places}.items())
    stretches: list[_Stretch] = []
    run: list[Place] = []
    pack = ""
    for (key, offset, _), place in wanted:
        joins = run and key == pack and offset - run[-1].offset - run[-1].length <= GAP
        if not joins or offset + place.length - run[0].offset > LONGEST:
            if run:
                stretches.append(_Stretch(pack, tuple(run)))
            run, pack = [], key
        run.append(place)
    if run:
        stretches.append(_Stretch(pack, tuple(run)))
    return stretches


def _pack(place: Place) -> str:
    return names.pack(place.host, place.pack)
