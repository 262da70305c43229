"""Vault credentials files: signed, with an end, a use count and a host pattern. Told apart when they do not hold."""

from __future__ import annotations

import fnmatch
from datetime import datetime, timedelta

from pydantic import ValidationError
from sqlalchemy.orm import Session

from common.contracts.enrolment import CredentialsClaims
from common.contracts.jobs import VaultAccess
from common.contracts.operator import CredentialsCreate, CredentialsView
from common.errors import (
    CredentialsAltered,
    CredentialsExpired,
    CredentialsForeign,
    CredentialsUsedUp,
    NotTrusted,
)
from common.ids import new_uuid
from common.signing import EnvelopeType, b64, open_signed, sign
from coordinator.access.models import CredentialsFile
from coordinator.keys import CoordinatorKeys
from coordinator.vaults.models import Vault

ISSUER = "stateward"


def vault_access(vault: Vault) -> VaultAccess:
    return VaultAccess(vault_id=vault.id, name=vault.name, url=vault.url)


def issue_credentials(
    session: Session,
    vault: Vault,
    wanted: CredentialsCreate,
    *,
    keys: CoordinatorKeys,
    url: str,
    ca_pem: str,
    now: datetime,
) -> CredentialsView:
    expires = now + timedelta(seconds=wanted.valid_s)
    row = CredentialsFile(
        id=new_uuid(),
        vault_id=vault.id,
        uses=wanted.uses,
        host_pattern=wanted.host_pattern,
        labels=wanted.labels,
        region=wanted.region,
        created=now,
        expires=expires,
    )
    session.add(row)
    claims = CredentialsClaims(
        iss=ISSUER,
        jti=row.id,
        iat=int(now.timestamp()),
        exp=int(expires.timestamp()),
        coordinator_url=url,
        coordinator_key=b64(keys.public.public_bytes_raw()),
        ca_pem=ca_pem,
        vault=vault_access(vault),
        labels=wanted.labels,
        region=wanted.region,
        host_pattern=wanted.host_pattern,
        uses=wanted.uses,
    )
    token = sign(claims.model_dump(mode="json"), kind=EnvelopeType.CREDENTIALS, key=keys.signing)
    return CredentialsView(token=token, expires=expires)


def read_credentials(token: str, *, keys: CoordinatorKeys) -> CredentialsClaims:
    """What was signed. Its end and its uses are judged by `take_use`.

    Raises CredentialsAltered: not signed by this coordinator, or changed since.
    """
    try:
        claims = open_signed(token, kind=EnvelopeType.CREDENTIALS, keys=keys.trusted)
        return CredentialsClaims.model_validate(claims)
    except (NotTrusted, ValidationError) as error:
        raise CredentialsAltered("The vault credentials file is not as this coordinator signed it.") from error


def take_use(
    session: Session, claims: CredentialsClaims, *, hostname: str, region: str, now: datetime
) -> CredentialsFile:
    """Count one use. A host that registered already takes none (its registration is found before).

    Raises:
        CredentialsExpired, CredentialsUsedUp; CredentialsForeign: not of this coordinator's database, another
            host's name or another region than it was made for.
    """
    row = session.get(CredentialsFile, claims.jti, with_for_update=True)
    if row is None:
        raise CredentialsForeign("The vault credentials file is not one that this coordinator knows.")
    if row.expires <= now:
        raise CredentialsExpired(f"The vault credentials file expired at {row.expires.isoformat()}.")
    if not fnmatch.fnmatchcase(hostname.lower(), row.host_pattern.lower()):
        raise CredentialsForeign(f"The vault credentials file is for hosts {row.host_pattern}, not for {hostname}.")
    if row.region and region and row.region != region:
        raise CredentialsForeign(f"The vault credentials file is for region {row.region}, the host is in {region}.")
    if row.used >= row.uses:
        raise CredentialsUsedUp(f"The vault credentials file was used {row.used} times, which is all it allows.")
    row.used += 1
    return row
