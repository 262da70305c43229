"""Making a grant: the passphrase opens the point's root here, and the root is sealed to the target host's key.

The coordinator is not trusted with any of it: what it says about job, point, target and mode must be what the person
asked for; the point's signature must be of the key that the passphrase unwraps; the ephemeral key must be signed by the
target, whose key is known from the passphrase when a host restores its own point, and shown as a fingerprint else.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.contracts.jobs import RestoreSpec
from common.contracts.operator import GrantCreate, GrantView
from common.errors import Damaged, NotTrusted, WrongPassphrase
from common.secret import Secret
from common.signing import b64, fingerprint, load_public_key, unb64
from common.vault import names
from common.vault.grant import GrantTerms, check_restore_key, make_grant
from common.vault.keys import HostKeys, unwrap
from common.vault.points import StoredPoint, open_root


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the person asked for."""

    job_id: str
    target_host: str
    spec: RestoreSpec
    target_fingerprint: str | None = None


def grant_for(view: GrantView, wanted: Wanted, passphrase: Secret[str]) -> GrantCreate:
    """The sealed grant. `view.public_key` must be there: the host has asked.

    Raises:
        NotTrusted: the coordinator says something else than was asked for, or a signature does not hold.
        WrongPassphrase; Damaged.
    """
    _same(view, wanted)
    if view.public_key is None or view.signature is None:
        raise NotTrusted("The target host has not asked for the grant.")
    keys = _keys(view, passphrase)
    key = names.point(view.source_host, view.point)
    point = StoredPoint.parse(unb64(view.point_object))
    point.verify(keys.signing_key.public_key(), vault_id=view.vault_id, object_key=key)
    public, target_key = unb64(view.public_key), unb64(view.target_host_key)
    if view.target_host == view.source_host and target_key != keys.signing_key.public_key().public_bytes_raw():
        raise NotTrusted("The coordinator names another key for the host than the passphrase unwraps.")
    if wanted.target_fingerprint is not None and fingerprint(target_key) != wanted.target_fingerprint:
        raise NotTrusted(f"The target host's key has the fingerprint {fingerprint(target_key)}.")
    check_restore_key(public, unb64(view.signature), job_id=wanted.job_id, host=load_public_key(target_key))
    terms = GrantTerms(
        vault_id=view.vault_id,
        job_id=wanted.job_id,
        source_host=view.source_host,
        point=view.point,
        target_host=view.target_host,
        destination=wanted.spec.destination,
        conflict=wanted.spec.conflict.value,
        includes=wanted.spec.includes,
    )
    sealed = make_grant(open_root(point, keys.recovery_seed), public, terms, signer=keys.signing_key)
    return GrantCreate(grant=b64(sealed))


def target_fingerprint(view: GrantView) -> str:
    return fingerprint(unb64(view.target_host_key))


def _same(view: GrantView, wanted: Wanted) -> None:
    spec = wanted.spec
    asked = (wanted.job_id, wanted.target_host, spec.source_host, spec.point, spec.destination, spec.conflict.value)
    said = (view.job_id, view.target_host, view.source_host, view.point, view.destination, view.conflict)
    if asked != said:
        raise NotTrusted("The coordinator describes another restore than was asked for.")


def _keys(view: GrantView, passphrase: Secret[str]) -> HostKeys:
    problem: WrongPassphrase | Damaged = Damaged(f"The vault holds no wrapped key of host {view.source_host}.")
    for raw in view.wrappings.values():
        try:
            return unwrap(unb64(raw), passphrase, vault_id=view.vault_id, host_id=view.source_host)
        except (WrongPassphrase, Damaged) as error:
            problem = error
    raise problem
