"""A whole coordinator in this process, on real SQLite, Valkey and SeaweedFS, and a host that speaks to it."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import jwt
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contracts.base import Contract
from common.contracts.checkin import CheckinReply, CheckinRequest, HostReport
from common.contracts.enrolment import EnrolReply, EnrolRequest, KeysReply, KeysRequest
from common.contracts.jobs import JobEvent, JobReport, Lease, LeaseRequest, Progress, Renewal, RenewRequest, Stage
from common.contracts.operator import CredentialsCreate, JobView, VaultCreate, VaultView
from common.contracts.queue import queue_name
from common.ids import new_ulid, new_uuid
from common.jobstates import JobState
from common.secret import Secret
from common.signing import PROOF_HEADER, EnvelopeType, b64, request_claims, sign, unb64
from common.vault import names
from common.vault.documents import HostDocument
from common.vault.hosts import write_host_record
from common.vault.keys import HostKeys, generate_passphrase, new_host_keys, wrap
from coordinator.client import ApiClient
from coordinator.embedded import QueueAccess, StoreAccess
from coordinator.serve import ALL_ROLES, Role, serve
from coordinator.settings import Settings

R = TypeVar("R", bound=Contract)


class Clock:
    """The real one, which a test can push forward."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Coordinator:
    settings: Settings
    clock: Clock
    url: str
    api: ApiClient

    @property
    def database(self) -> Path:
        return self.settings.folder / "stateward.db"


@contextmanager
def running(settings: Settings, clock: Clock, roles: frozenset[Role] = ALL_ROLES) -> Iterator[Coordinator]:
    """`serve` in a thread, as the program runs it, and an API client of its administrator."""
    stop, ready = threading.Event(), threading.Event()
    urls: list[str] = []
    failed: list[Exception] = []

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    def target() -> None:
        try:
            serve(settings, clock=clock, roles=roles, ready=on_ready, stop=stop)
        except Exception as error:  # noqa: BLE001 - the test thread raises it
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=target, name="coordinator")
    thread.start()
    assert ready.wait(30)
    try:
        if failed:
            raise failed[0]
        token = Secret((settings.folder / "admin-token").read_text().strip())
        with ApiClient(urls[0], token) as api:
            yield Coordinator(settings, clock, urls[0], api)
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def settings_for(folder: Path, valkey: QueueAccess | None, seaweedfs: StoreAccess, **changes: Any) -> Settings:
    queue = (
        {}
        if valkey is None
        else {
            "url": f"redis://{valkey.host}:{valkey.port}/0",
            "publisher_password": valkey.publisher_password.reveal(),
            "admin_password": valkey.admin_password.reveal(),
        }
    )
    storage = {
        "endpoint": seaweedfs.endpoint,
        "region": seaweedfs.region,
        "janitor_access_key": seaweedfs.janitor_key,
        "janitor_secret_key": seaweedfs.janitor_secret.reveal(),
        "broker_access_key": seaweedfs.broker_key,
        "broker_secret_key": seaweedfs.broker_secret.reveal(),
        "role_arn": seaweedfs.role_arn,
    }
    return Settings(
        **{
            "data": folder,
            "listen_port": 0,
            "janitor_s": 0.2,
            "publish_s": 0.2,
            "alive_s": 0.5,
            "storage": storage,
            "queue": queue,
        }
        | changes
    )


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def coordinator(
    tmp_path_factory: pytest.TempPathFactory, valkey: QueueAccess, seaweedfs: StoreAccess, clock: Clock
) -> Iterator[Coordinator]:
    """One a module, as is its vault: each bucket costs SeaweedFS several volumes. A test pushes the clock on only."""
    with running(settings_for(tmp_path_factory.mktemp("coordinator"), valkey, seaweedfs), clock) as coordinator:
        yield coordinator


@pytest.fixture(scope="module")
def vault(coordinator: Coordinator) -> VaultView:
    return coordinator.api.create_vault(VaultCreate(name="Main"))


_numbers = itertools.count(1)


@dataclass
class Host:
    """A host's side: keys, proofs, calls. It does no backup; it says so."""

    url: str
    clock: Clock
    id: str = field(default_factory=new_uuid)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    name: str = field(default_factory=lambda: f"host-{next(_numbers)}")
    agent: str = "agent1"
    seq: int = 0
    token: str = ""
    enrolled: EnrolReply | None = None
    keys: HostKeys | None = None
    passphrase: Secret[str] = field(default_factory=generate_passphrase)

    @property
    def report(self) -> HostReport:
        return HostReport(hostname=self.name, os_name="Linux", os_version="6", os_build="1", agent_version="1")

    def post(self, path: str, message: Contract | bytes, *, seq: int | None = None, **claims: Any) -> httpx.Response:
        body = message if isinstance(message, bytes) else message.model_dump_json().encode()
        if seq is None:
            self.seq += 1
            seq = self.seq
        proof = request_claims(
            method="POST",
            path=path,
            body=body,
            host=self.id,
            instance=f"{self.agent}/1",
            seq=seq,
            iat=self.clock().timestamp(),
        )
        headers = {
            PROOF_HEADER: sign({**proof, **claims}, kind=EnvelopeType.REQUEST, key=self.key),
            "Content-Type": "application/json",
        }
        return httpx.post(self.url + path, content=body, headers=headers, timeout=30)

    def call(self, path: str, message: Contract, into: type[R]) -> R:
        answer = self.post(path, message)
        assert answer.status_code == 200, answer.text
        return into.model_validate_json(answer.content)

    def enrol(self, token: str) -> EnrolReply:
        self.token = token
        request = EnrolRequest(
            token=token, host_id=self.id, host_key=b64(self.key.public_key().public_bytes_raw()), report=self.report
        )
        self.enrolled = self.call("/v1/enrol", request, EnrolReply)
        return self.enrolled

    def enrol_again(self) -> EnrolReply:
        """Repeats the registration, which needs no use of the file."""
        return self.enrol(self.token)

    def send_keys(self, *, saved: bool = True) -> KeysReply:
        assert self.enrolled is not None
        vault_id = self.enrolled.vault.vault_id
        if self.keys is None:
            made = new_host_keys(
                vault_id=vault_id,
                host_id=self.id,
                vault_sha256=hashlib.sha256(unb64(self.enrolled.vault_object)).digest(),
                domains={self.enrolled.domain.domain_id: Secret(unb64(self.enrolled.domain.secret))},
            )
            self.keys = HostKeys(
                vault_id=made.vault_id,
                host_id=made.host_id,
                vault_sha256=made.vault_sha256,
                recovery_seed=made.recovery_seed,
                signing=Secret(self.key.private_bytes_raw()),
                host_secret=made.host_secret,
                domains=made.domains,
            )
        document = HostDocument(
            host=self.id,
            name=self.name,
            signing_public=self.key.public_key().public_bytes_raw(),
            recovery_public=self.keys.recovery_public,
            key_id=self.keys.key_id,
            created=self.clock().isoformat(),
        )
        key, record = write_host_record(document, vault_id=vault_id, signer=self.key)
        request = KeysRequest(
            host_object_key=key,
            host_object=b64(record),
            wrapping_key=names.wrapping(self.id, self.keys.key_id, new_ulid()),
            wrapping=b64(wrap(self.keys, self.passphrase)),
            key_saved=self.keys.fingerprint if saved else None,
        )
        return self.call("/v1/enrol/keys", request, KeysReply)

    def check_in(self, *events: JobEvent, **fields: Any) -> CheckinReply:
        return self.call("/v1/checkin", CheckinRequest(events=events, **fields), CheckinReply)

    @staticmethod
    def job_of(message: str) -> str:
        claims: dict[str, Any] = jwt.decode(message, options={"verify_signature": False})
        return str(claims["job_id"])

    def ask_lease(self, job_id: str, message: str, request_id: str | None = None) -> httpx.Response:
        return self.post(f"/v1/jobs/{job_id}/lease", LeaseRequest(request_id=request_id or new_uuid(), message=message))

    def lease(self, job_id: str, message: str, request_id: str | None = None) -> Lease:
        answer = self.ask_lease(job_id, message, request_id)
        assert answer.status_code == 200, answer.text
        return Lease.model_validate_json(answer.content)

    def renew(self, lease: Lease, stage: Stage = Stage.UPLOADING, **fields: Any) -> Renewal:
        request = RenewRequest(epoch=lease.epoch, fence=lease.fence, progress=Progress(stage=stage), **fields)
        return self.call(f"/v1/jobs/{lease.job_id}/renew", request, Renewal)

    def event(self, lease: Lease, state: JobState, **fields: Any) -> JobEvent:
        report = fields.pop("report", JobReport(files=3, logical_bytes=10))
        return JobEvent(
            id=new_ulid(),
            job_id=lease.job_id,
            attempt=lease.attempt,
            epoch=lease.epoch,
            fence=lease.fence,
            state=state,  # type: ignore[arg-type]
            at=self.clock(),
            report=report,
            point=lease.point if state is JobState.COMMITTED else None,
            **fields,
        )

    def pop(self, timeout: int = 10) -> str | None:
        """The signed job out of the host's own list, as its own user; None when there is none."""
        assert self.enrolled is not None
        access = self.enrolled.queue
        client: Any = redis.Redis.from_url(
            access.url, username=access.user, password=access.password, protocol=2, driver_info=None
        )
        try:
            popped = client.execute_command("BRPOP", queue_name(self.id), timeout)
        finally:
            client.close()
        if popped is None:
            return None
        envelope = json.loads(popped[1])
        assert envelope["headers"]["task"] == "stateward.job"
        args, kwargs, _ = json.loads(unb64(envelope["body"]))
        assert len(args) == 1
        assert kwargs == {}
        return str(args[0])


@pytest.fixture
def host(coordinator: Coordinator, vault: VaultView) -> Host:
    return enrolled_host(coordinator, vault)


def enrolled_host(coordinator: Coordinator, vault: VaultView) -> Host:
    """Registered, with its keys in the vault, active."""
    host = Host(coordinator.url, coordinator.clock)
    host.enrol(coordinator.api.create_credentials(vault.name, CredentialsCreate()).token)
    assert host.send_keys().state == "active"
    return host


def eventually(look: Callable[[], Any], *, within_s: float = 20) -> Any:
    """The first true answer."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come true in time")


def job_in(coordinator: Coordinator, job_id: str, *states: JobState) -> JobView:
    def look() -> JobView | None:
        job = coordinator.api.job(job_id)
        return job if job.state in states else None

    found = eventually(look)
    assert isinstance(found, JobView)
    return found
