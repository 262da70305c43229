"""Lease objects in the vault: what a running backup relies on, and what it has written so far.

A block counts as known, and collection spares it, only through them; one is written at the start, after each bracket, and
at least every 12 h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.ids import new_ulid
from common.vault import names
from common.vault.documents import LeaseDocument, NamedObject
from common.vault.index import Index
from common.vault.pages import Page
from common.vault.signed import write_signed

if TYPE_CHECKING:
    from worker.backup import BackupDeps, BackupRequest
    from worker.naming import Named
    from worker.upload import Uploader

_LONGEST_S = 6 * 3600
"""Half of the 12 h that the format allows."""


class LeaseLog:
    """The leases of one attempt; keeps what its brackets wrote."""

    def __init__(self, request: BackupRequest, deps: BackupDeps) -> None:
        self._request = request
        self._deps = deps
        self._written = 0.0
        self.pages: list[Page] = []
        self.indexes: list[tuple[NamedObject, Index]] = []

    @property
    def due(self) -> bool:
        return self._deps.monotonic() - self._written > _LONGEST_S

    def bracket(self, uploader: Uploader) -> None:
        """lists → index → lease, for all that was stored since the last one."""
        pages, indexes = uploader.bracket()
        self.pages += pages
        self.indexes += indexes
        if pages or self.due:
            self.write()

    def write(self, named: Named | None = None) -> None:
        """A lease object that names everything up to now; with `named`, also what the point is going to name."""
        request, pinned = self._request, self._deps.pinned
        lists = {each.key: each for each in (page.named for page in self.pages)}
        indexes = {each.key: each for each, _ in self.indexes}
        if named is not None:
            relied = {each.key for each in (*request.lists, *request.indexes)}
            lists |= {each.key: each for each in named.all_lists if each.key not in relied}
            indexes |= {each.key: each for each in named.all_indexes if each.key not in relied}
        document = LeaseDocument(
            job=request.job,
            attempt=request.attempt,
            epoch=request.epoch,
            fence=request.fence,
            point=request.point,
            relies_lists=request.lists,
            relies_indexes=request.indexes,
            wrote_lists=tuple(lists.values()),
            wrote_indexes=tuple(indexes.values()),
            created=self._deps.clock().isoformat(),
        )
        key = names.lease(pinned.host_id, new_ulid())
        raw = write_signed("lease", document, vault_id=pinned.vault_id, object_key=key, signer=pinned.signing_key)
        self._deps.store.put(key, raw)
        self._written = self._deps.monotonic()
