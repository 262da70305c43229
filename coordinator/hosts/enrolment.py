"""How a host joins: registration with the credentials file's token, then its record and wrapping.

Registering is idempotent by the host's key: whoever repeats it with the same key gets the same answer and takes no use
of the file. The coordinator never sees the passphrase: the wrapping passes through it sealed.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from common.contracts.checkin import HostReport
from common.contracts.enrolment import (
    CredentialsClaims,
    DomainSecret,
    EnrolReply,
    EnrolRequest,
    KeysReply,
    KeysRequest,
    QueueAccess,
)
from common.contracts.queue import queue_name
from common.errors import (
    AlreadyExists,
    Conflicting,
    Damaged,
    NotTrusted,
    QueueUnavailable,
    Refused,
    RequestInvalid,
)
from common.ids import is_ulid
from common.signing import b64, fingerprint, load_public_key, unb64
from common.telemetry import get_logger
from common.vault.documents import HostDocument
from common.vault.hosts import check_host_record
from common.vault.store import Store
from coordinator.access.credentials import read_credentials, take_use, vault_access
from coordinator.hosts.models import Host, HostState
from coordinator.hosts.service import find_host
from coordinator.service import Services
from coordinator.vaults.models import Vault
from coordinator.vaults.service import ready_vault

log = get_logger(__name__)


def enrol(services: Services, request: EnrolRequest) -> EnrolReply:
    """The proof was made with `request.host_key`: whoever calls this has checked it.

    Raises:
        CredentialsAltered, CredentialsExpired, CredentialsForeign, CredentialsUsedUp.
        Conflicting: the host id is registered with another key.
    """
    claims = read_credentials(request.token, keys=services.keys)
    public_key = unb64(request.host_key)
    load_public_key(public_key)
    with services.db.write() as session:
        vault = ready_vault(session, claims.vault.vault_id)
        host = session.get(Host, request.host_id)
        if host is None:
            host = _register(services, session, request, claims, public_key)
            session.add(host)
        elif host.public_key != public_key or host.state == HostState.REMOVED.value or host.vault_id != vault.id:
            raise Conflicting(
                f"Host {request.host_id} is registered already, with another key or in another vault, or was removed.",
                next_step="Register with a new identity: with another state folder.",
            )
    if services.queue_users is not None:
        try:
            services.queue_users.add(host.id, host.public_key)
        except QueueUnavailable as error:
            log.warning("queue user not made yet", host=host.id, reason=error.message)
    return _reply(services, host, vault)


def take_keys(services: Services, host_id: str, request: KeysRequest) -> KeysReply:
    """Store the host's record and its wrapping in the vault. May be repeated; more wrappings may follow.

    Raises:
        RequestInvalid: the objects' keys are not this host's.
        NotTrusted: the record is not signed by the host's key; Refused: another key's fingerprint was confirmed.
    """
    with services.db.read() as session:
        host = find_host(session, host_id)
        vault = ready_vault(session, host.vault_id)
    record, wrapping = unb64(request.host_object), unb64(request.wrapping)
    if not _is_record(request.host_object_key, host_id) or not _is_wrapping(request.wrapping_key, host_id):
        raise RequestInvalid("Field host_object_key or wrapping_key is not below this host's own prefix.")
    document = _checked_record(record, request.host_object_key, host, vault)
    if request.key_saved is not None and request.key_saved != fingerprint(document.recovery_public):
        raise Refused(
            "The fingerprint that was confirmed is not that of the host's recovery key.",
            next_step="Compare it with the fingerprint that `register` showed.",
        )
    store = services.storage.store(vault.url)
    _put_once(store, request.wrapping_key, wrapping)
    _put_once(store, request.host_object_key, record)
    with services.db.write() as session:
        row = find_host(session, host_id)
        row.record_key = request.host_object_key
        if request.key_saved is not None and row.state == HostState.INCOMPLETE.value:
            row.state = HostState.ACTIVE.value
        state = row.state
    log.info("host keys stored", host=host_id, state=state, key_id=document.key_id)
    return KeysReply(state=state)


def _register(
    services: Services, session: Session, request: EnrolRequest, claims: CredentialsClaims, public_key: bytes
) -> Host:
    now = services.clock()
    file = take_use(session, claims, hostname=request.report.hostname, region=request.region, now=now)
    return Host(
        id=request.host_id,
        name=request.report.hostname,
        vault_id=file.vault_id,
        credentials_id=file.id,
        state=HostState.INCOMPLETE.value,
        public_key=public_key,
        labels=file.labels,
        region=file.region or request.region,
        report=request.report.model_dump(mode="json"),
        enrolled=now,
        last_seen=now,
    )


def take_report(host: Host, report: HostReport) -> None:
    """Facts change; the name stays as it was registered until an operator renames the host."""
    host.report = report.model_dump(mode="json")


def _reply(services: Services, host: Host, vault: Vault) -> EnrolReply:
    settings = services.settings.queue
    password = services.keys.queue_password(queue_name(host.id), public_key=host.public_key)
    return EnrolReply(
        host_id=host.id,
        vault=vault_access(vault),
        queue=QueueAccess(url=settings.host_url or settings.url, user=queue_name(host.id), password=password.reveal()),
        domain=DomainSecret(
            domain_id=vault.domain_id, secret=b64(services.keys.domain_secret(vault.domain_id).reveal())
        ),
        config_object=b64(vault.config_object or b""),
        config_seq=vault.config_seq,
        vault_object=b64(vault.vault_object or b""),
        server_time=services.clock(),
    )


def _checked_record(raw: bytes, key: str, host: Host, vault: Vault) -> HostDocument:
    public = load_public_key(host.public_key)
    document = check_host_record(raw, vault_id=vault.id, object_key=key, public=public)
    if document.host != host.id or document.signing_public != host.public_key or document.removed:
        raise NotTrusted("The host's record is about another host or another key.")
    return document


def _is_record(key: str, host: str) -> bool:
    return key.startswith(f"hosts/{host}/") and is_ulid(key.rpartition("/")[2]) and key.count("/") == 2  # noqa: PLR2004


def _is_wrapping(key: str, host: str) -> bool:
    parts = key.split("/")
    return len(parts) == 4 and parts[:2] == ["keys", host] and is_ulid(parts[3])  # noqa: PLR2004


def _put_once(store: Store, key: str, data: bytes) -> None:
    try:
        store.put(key, data)
    except AlreadyExists:
        if store.get(key) != data:
            raise Damaged(f"The vault holds something else under {key}.") from None
