"""`/v1/vaults`, for operators."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select

from common.contracts.operator import CredentialsCreate, CredentialsView, VaultCreate, VaultPage, VaultView
from coordinator.access.callers import PROBLEMS, Cursor, Limit, Operator, With
from coordinator.access.credentials import issue_credentials
from coordinator.vaults import service
from coordinator.vaults.models import Vault

router = APIRouter(prefix="/v1/vaults", tags=["vaults"], dependencies=[Operator], responses=PROBLEMS)


@router.post("", status_code=201)
def create_vault(request: VaultCreate, services: With) -> VaultView:
    """Makes the bucket and the vault's first objects; `state` says how far it came."""
    return service.create_vault(services, request)


@router.get("")
def list_vaults(services: With, limit: Limit = 100, cursor: Cursor = None) -> VaultPage:
    """Vaults by name."""
    query = select(Vault).order_by(Vault.name).limit(limit + 1)
    if cursor is not None:
        query = query.where(Vault.name > cursor)
    with services.db.read() as session:
        rows = session.scalars(query).all()
    more = rows[limit - 1].name if len(rows) > limit else None
    return VaultPage(items=tuple(service.view(vault) for vault in rows[:limit]), next_cursor=more)


@router.get("/{vault}")
def show_vault(vault: str, services: With) -> VaultView:
    """By id or name."""
    with services.db.read() as session:
        return service.view(service.find_vault(session, vault))


@router.post("/{vault}/credentials", status_code=201)
def create_credentials(vault: str, request: CredentialsCreate, services: With) -> CredentialsView:
    """A vault credentials file, with which hosts register."""
    certificate = services.settings.tls_certificate
    ca_pem = certificate.read_text() if certificate is not None else ""
    with services.db.write() as session:
        row = service.ready_vault(session, vault)
        return issue_credentials(
            session,
            row,
            request,
            keys=services.keys,
            url=services.public_url,
            ca_pem=ca_pem,
            now=services.clock(),
        )
