"""Version ids for hosts, who may not list: of keys below their own prefixes alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.contracts.base import Contract
from common.errors import NotTrusted, Refused
from common.vault.store import ObjectMissing, check_key
from coordinator.jobs.views import find_job
from coordinator.service import Services
from coordinator.vaults.models import Vault

MAX_KEYS = 100
_OWN = ("packs", "index", "lists", "leases", "points")


class VersionsRequest(Contract):
    keys: Annotated[tuple[str, ...], Field(max_length=MAX_KEYS)]


class VersionsReply(Contract):
    versions: dict[str, tuple[str, ...]]
    """Key → version ids, newest first; none for a key that holds nothing. Delete markers are left out."""


def versions_of(services: Services, host_id: str, job_id: str, request: VersionsRequest) -> VersionsReply:
    """Raises Refused for a key of another host."""
    with services.db.read() as session:
        job = find_job(session, job_id)
        if job.host_id != host_id:
            raise NotTrusted("The job is not this host's.")
        vault = session.get_one(Vault, job.vault_id)
    for key in request.keys:
        _check_own(key, host_id)
    store = services.storage.store(vault.url)
    found: dict[str, tuple[str, ...]] = {}
    for key in request.keys:
        try:
            found[key] = tuple(each.version for each in store.versions(key) if not each.delete_marker)
        except ObjectMissing:
            found[key] = ()
    return VersionsReply(versions=found)


def _check_own(key: str, host_id: str) -> None:
    try:
        check_key(key)
    except ValueError as error:
        raise Refused(f"{key!r} is not an object's key.") from error
    if not any(key.startswith(f"{kind}/{host_id}/") for kind in _OWN):
        raise Refused("Version ids are given of the host's own objects alone.")
