"""Vaults: made in steps that may each be done again, looked up, shown."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.contracts.operator import VaultCreate, VaultView
from common.errors import Conflicting, StatewardError, VaultNotFound
from common.ids import is_uuid, new_uuid
from common.telemetry import get_logger
from coordinator.service import Services
from coordinator.vaults.making import write_vault
from coordinator.vaults.models import Vault, VaultState

log = get_logger(__name__)

_ID_IN_BUCKET = 6


def bucket_name(name: str, vault_id: str) -> str:
    """A vault's name may be two characters, mixed case, or end in a hyphen; a bucket's may not."""
    plain = "".join(c for c in name.lower() if c.isascii() and c.isalnum())
    return f"sw-{plain}-{vault_id[:_ID_IN_BUCKET]}"


def create_vault(services: Services, wanted: VaultCreate) -> VaultView:
    """The row first, then the bucket and its first objects; a failure leaves a row that the janitor goes on with.

    Raises:
        Conflicting: another vault has this name.
    """
    now = services.clock()
    vault_id = new_uuid()
    bucket = bucket_name(wanted.name, vault_id)
    with services.db.write() as session:
        if session.scalar(select(Vault.id).where(Vault.name == wanted.name)):
            raise Conflicting(f"There is a vault of the name {wanted.name} already.")
        session.add(
            Vault(
                id=vault_id,
                name=wanted.name,
                bucket=bucket,
                url=services.storage.location(bucket).url,
                region=wanted.region,
                state=VaultState.CREATING.value,
                step="bucket",
                domain_id=new_uuid(),
                created=now,
            )
        )
    finish_vault(services, vault_id)
    with services.db.read() as session:
        return view(find_vault(session, vault_id))


def finish_vault(services: Services, vault_id: str) -> None:
    """Do the steps that are still to do. Never raises for the store: the reason stands in the row."""
    with services.db.read() as session:
        vault = find_vault(session, vault_id)
    try:
        services.storage.make_bucket(vault.bucket)
        _step(services, vault_id, "objects")
        services.keys.domain_secret(vault.domain_id)
        made = write_vault(
            services.storage.store(vault.url),
            vault_id=vault_id,
            name=vault.name,
            signer=services.keys.signing,
            clock=services.clock,
        )
    except StatewardError as error:
        log.warning("vault not made yet", vault=vault.name, code=error.code, reason=error.message)
        with services.db.write() as session:
            row = find_vault(session, vault_id)
            row.state = VaultState.CREATING.value if error.retryable else VaultState.FAILED.value
            row.reason = error.message
        return
    with services.db.write() as session:
        row = find_vault(session, vault_id)
        row.vault_object = made.vault_object
        row.config_key, row.config_object, row.config_seq = made.config_key, made.config_object, made.config_seq
        row.state, row.step, row.reason = VaultState.READY.value, "", ""
    log.info("vault ready", vault=vault.name)


def find_vault(session: Session, name_or_id: str) -> Vault:
    """Raises VaultNotFound."""
    column = Vault.id if is_uuid(name_or_id) else Vault.name
    vault = session.scalar(select(Vault).where(column == name_or_id))
    if vault is None:
        raise VaultNotFound(f"There is no vault {name_or_id}.")
    return vault


def ready_vault(session: Session, name_or_id: str) -> Vault:
    """Raises VaultNotFound; Conflicting when it is not ready."""
    vault = find_vault(session, name_or_id)
    if vault.state != VaultState.READY.value:
        raise Conflicting(
            f"Vault {vault.name} is {vault.state}: {vault.reason or vault.step}.",
            next_step="See `stateward vault show`, and try again when it is ready.",
        )
    return vault


def view(vault: Vault) -> VaultView:
    return VaultView(
        id=vault.id, name=vault.name, url=vault.url, region=vault.region, state=vault.state, created=vault.created
    )


def unfinished_vaults(session: Session, *, before: datetime) -> list[str]:
    """Those whose making was interrupted (younger ones are still being made by a request)."""
    query = select(Vault.id).where(Vault.state == VaultState.CREATING.value, Vault.created < before)
    return list(session.scalars(query))


def _step(services: Services, vault_id: str, step: str) -> None:
    with services.db.write() as session:
        find_vault(session, vault_id).step = step
