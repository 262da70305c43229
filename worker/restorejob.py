"""What a restore job needs before it may write: this host's consent, and a person's grant.

A job that writes files as an administrator is remote code execution. So a host accepts by itself only its own points,
into its scratch folder, without overwriting; anything more is allowed by a setting on the host, not by the coordinator.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.contracts.jobs import Conflict, Lease, Progress, RestoreKey, RestoreSpec, Stage
from common.errors import Cancelled, GrantRefused, NotTrusted
from common.secret import Secret
from common.signing import b64, load_public_key, unb64
from common.vault import grant as grants
from common.vault import hpke
from worker.identity import Identity
from worker.journal import Journal
from worker.settings import RestoreSettings
from worker.tether import Tether

WAIT_S = 0.2
PATIENCE_S = 900.0
"""Longer than the command that makes a grant waits. A host does one job at a time: its backups wait meanwhile."""


def accept(spec: RestoreSpec, *, job_id: str, host_id: str, rules: RestoreSettings, scratch: Path) -> Path:
    """The folder to restore into.

    Raises:
        GrantRefused: this host does not allow it; names the setting.
    """
    if spec.source_host != host_id and not rules.allow_foreign_points:
        raise _refused(f"points of another host ({spec.source_host})", "allow_foreign_points")
    if spec.conflict is Conflict.OVERWRITE and not rules.allow_overwrite:
        raise _refused("to overwrite files", "allow_overwrite")
    if spec.destination is None:
        return scratch / job_id
    folder = Path(spec.destination)
    if not folder.is_absolute() or ".." in folder.parts:
        raise GrantRefused(f"The destination {spec.destination!r} is not an absolute folder.")
    if not rules.allow_other_destinations:
        raise _refused(f"the destination {spec.destination}", "allow_other_destinations")
    return folder


def await_grant(
    lease: Lease,
    spec: RestoreSpec,
    *,
    identity: Identity,
    rules: RestoreSettings,
    journal: Journal,
    tether: Tether,
    sleep: Callable[[float], object],
) -> bytes:
    """Show the ephemeral key, wait for the person's grant, and open it: the point's root in clear.

    The key outlives a crash of this process (in the journal, until the job ends), so that a grant made meanwhile opens.

    Raises:
        Cancelled: the job is to stop.
        GrantRefused: the grant was made for another restore, or none came.
    """
    seed, public = _restore_key(lease.job_id, journal)
    signature = grants.sign_restore_key(public, job_id=lease.job_id, signer=identity.key())
    tether.progress(Progress(stage=Stage.AWAITING_GRANT))
    tether.offer(RestoreKey(public_key=b64(public), signature=b64(signature)))
    waited = 0.0
    while (sealed := tether.grant()) is None:
        if tether.cancelled():
            raise Cancelled("The restore was cancelled while it waited for its grant.")
        if waited >= PATIENCE_S:
            raise GrantRefused(
                f"No grant for the restore came within {PATIENCE_S / 60:.0f} minutes.",
                next_step="Run `stateward restore` again, and leave it running until it says that the grant was sent.",
            )
        sleep(WAIT_S)
        waited += WAIT_S
    terms = grants.GrantTerms(
        vault_id=lease.vault.vault_id,
        job_id=lease.job_id,
        source_host=spec.source_host,
        point=spec.point,
        target_host=identity.host_id,
        destination=spec.destination,
        conflict=spec.conflict.value,
        includes=spec.includes,
    )
    return grants.open_grant(sealed, seed, terms, source=_source_key(spec, identity, rules))


def _source_key(spec: RestoreSpec, identity: Identity, rules: RestoreSettings) -> Ed25519PublicKey:
    """The key of the host whose point it is: this host's own, or one that its settings name. Raises GrantRefused."""
    if spec.source_host == identity.host_id:
        return identity.key().public_key()
    named = rules.foreign_hosts.get(spec.source_host)
    if named is None:
        raise _refused(f"points of host {spec.source_host}, whose key it does not know", "foreign_hosts")
    try:
        return load_public_key(unb64(named))
    except (NotTrusted, ValueError) as error:
        raise GrantRefused(f"The setting restore.foreign_hosts holds no Ed25519 key for {spec.source_host}.") from error


def _restore_key(job_id: str, journal: Journal) -> tuple[Secret[bytes], bytes]:
    job = journal.job(job_id)
    if job is not None and job.restore_key is not None:
        seed = Secret(job.restore_key)
        return seed, hpke.public_key(seed)
    seed, public = grants.new_restore_key()
    journal.keep_restore_key(job_id, seed.reveal())
    return seed, public


def _refused(what: str, setting: str) -> GrantRefused:
    return GrantRefused(
        f"This host does not accept {what} from a remote restore.",
        next_step=f"If it is wanted, set restore.{setting} = true in this host's worker.toml, and start the restore anew.",
    )
