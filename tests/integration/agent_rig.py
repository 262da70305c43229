"""A small real HTTP server that speaks the coordinator's side of the host API, and that can be told to misbehave.

It checks proofs and stores answers by (host, instance, seq), as the design says; what it gives is scripted by the test.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel

from common.contracts.checkin import CheckinReply, CheckinRequest
from common.contracts.enrolment import DomainSecret, EnrolReply, EnrolRequest, KeysReply, KeysRequest, QueueAccess
from common.contracts.jobs import (
    BackupSpec,
    JobEvent,
    JobMessage,
    Lease,
    LeaseRequest,
    Renewal,
    RenewRequest,
    StorageCredentials,
    VaultAccess,
)
from common.ids import new_ulid, new_uuid
from common.signing import PROOF_HEADER, EnvelopeType, b64, key_id, open_signed, request_claims, sign, unb64

VAULT = VaultAccess(vault_id="11111111-2222-4333-8444-555555555555", name="Rig", url="file:///nowhere")


class Refusal(Exception):
    def __init__(self, status: int, code: str, *, retry_after: int | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.retry_after = status, code, retry_after


class Rig:
    """State is public and guarded by nothing but the tests' patience; `trouble` runs before each request is looked at."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.host_keys: dict[str, Ed25519PublicKey] = {}
        self.queue = QueueAccess(url="redis://127.0.0.1:1/0", user="host.none", password="none")
        self.clock_offset_s = 0.0
        self.requests: list[tuple[str, str, int]] = []
        """(path, instance, seq) in order of arrival."""
        self.served = 0
        self.answers: dict[tuple[str, str, int], bytes] = {}
        self.trouble: Callable[[str], str | None] = lambda _: None
        """Given the path: None, `drop` (before), `lose` (the answer), or a status to answer with."""
        self.tokens_used: dict[str, str] = {}
        self.keys: list[KeysRequest] = []
        self.pending: dict[str, str] = {}
        self.cancels: set[str] = set()
        self.events: list[JobEvent] = []
        self.checkins: list[CheckinRequest] = []
        self.leases: dict[str, Lease] = {}
        self.lease_requests: list[tuple[str, str]] = []
        self.renewals: list[tuple[str, RenewRequest]] = []
        self.renew: Callable[[str, RenewRequest], Renewal] = lambda job_id, _: Renewal(
            server_time=self.now(), cancel=job_id in self.cancels
        )
        self.refuse_lease: Refusal | None = None
        self.next_checkin_s = 300.0
        self.credentials_live_s = 3600.0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.rig = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.clock_offset_s)

    def job(self, host_id: str, spec: Any = None, **changes: Any) -> tuple[str, str]:
        """(job id, signed message), not yet handed to anybody."""
        now = int(self.now().timestamp())
        job_id = new_uuid()
        claims: dict[str, Any] = {
            "iss": "rig", "aud": host_id, "jti": new_uuid(), "iat": now, "nbf": now - 5, "exp": now + 3600,
            "job_id": job_id, "spec": (spec or BackupSpec()).model_dump(mode="json"),
        }  # fmt: skip
        claims.update(changes)
        JobMessage.model_validate(claims)
        return claims["job_id"], sign(claims, kind=EnvelopeType.JOB, key=self.key)

    def credentials_token(self, **changes: Any) -> str:
        now = int(self.now().timestamp())
        claims: dict[str, Any] = {
            "iss": "stateward", "jti": new_uuid(), "iat": now, "exp": now + 3600, "coordinator_url": self.url,
            "coordinator_key": b64(self.key.public_key().public_bytes_raw()), "vault": VAULT.model_dump(), "uses": 1,
        }  # fmt: skip
        return sign({**claims, **changes}, kind=EnvelopeType.CREDENTIALS, key=self.key)

    # the API ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def serve(self, path: str, body: bytes, proof: str, trouble: str | None = None) -> bytes:
        if trouble is not None and trouble.isdigit():
            raise Refusal(int(trouble), "lease_lost" if trouble == "409" else "unreachable")
        claims = self._proven(path, body, proof)
        stored = (claims["iss"], claims["instance"], claims["seq"])
        with self._lock:
            if stored not in self.answers:
                self.served += 1
                self.answers[stored] = self._answer(path, body, claims["iss"]).model_dump_json().encode()
            return self.answers[stored]

    def _proven(self, path: str, body: bytes, proof: str) -> dict[str, Any]:
        host = jwt.decode(proof, options={"verify_signature": False})["iss"]
        key = self.host_keys.get(host)
        if key is None:
            if path != "/v1/enrol":
                raise Refusal(401, "not_authenticated")
            key = Ed25519PublicKey.from_public_bytes(unb64(EnrolRequest.model_validate_json(body).host_key))
        claims = open_signed(proof, kind=EnvelopeType.REQUEST, keys={key_id(key): key})
        wanted = request_claims(
            method="POST", path=path, body=body, host=host,
            instance=claims["instance"], seq=claims["seq"], iat=claims["iat"],
        )  # fmt: skip
        assert claims == wanted
        self.requests.append((path, claims["instance"], claims["seq"]))
        if abs(claims["iat"] - self.now().timestamp()) > 300:
            raise Refusal(401, "clock_skewed")
        return claims

    def _answer(self, path: str, body: bytes, host: str) -> BaseModel:
        if path == "/v1/enrol":
            return self._enrol(EnrolRequest.model_validate_json(body))
        if path == "/v1/enrol/keys":
            request = KeysRequest.model_validate_json(body)
            self.keys.append(request)
            return KeysReply(state="active" if request.key_saved else "incomplete")
        if path == "/v1/checkin":
            return self._check_in(CheckinRequest.model_validate_json(body))
        _, _, _, job_id, verb = path.split("/")
        if verb == "lease":
            return self._lease(job_id, LeaseRequest.model_validate_json(body))
        request_ = RenewRequest.model_validate_json(body)
        self.renewals.append((job_id, request_))
        return self.renew(job_id, request_)

    def _enrol(self, request: EnrolRequest) -> EnrolReply:
        claims = open_signed(
            request.token, kind=EnvelopeType.CREDENTIALS, keys={key_id(self.key.public_key()): self.key.public_key()}
        )
        if self.tokens_used.setdefault(claims["jti"], request.host_key) != request.host_key:
            raise Refusal(403, "credentials_used_up")
        self.host_keys[request.host_id] = Ed25519PublicKey.from_public_bytes(unb64(request.host_key))
        return EnrolReply(
            host_id=request.host_id, vault=VAULT, queue=self.queue,
            domain=DomainSecret(domain_id="99999999-2222-4333-8444-555555555555", secret=b64(b"d" * 32)),
            config_object=b64(b"config"), config_seq=1, vault_object=b64(b"{}"), server_time=self.now(),
        )  # fmt: skip

    def _check_in(self, request: CheckinRequest) -> CheckinReply:
        self.checkins.append(request)
        known = {event.id for event in self.events}
        self.events.extend(event for event in request.events if event.id not in known)
        for event in request.events:
            self.pending.pop(event.job_id, None)
        return CheckinReply(
            accepted=tuple(event.id for event in request.events), jobs=tuple(self.pending.values()),
            cancels=tuple(self.cancels), next_checkin_s=self.next_checkin_s, server_time=self.now(),
        )  # fmt: skip

    def _lease(self, job_id: str, request: LeaseRequest) -> Lease:
        self.lease_requests.append((job_id, request.request_id))
        if self.refuse_lease is not None:
            refusal, self.refuse_lease = self.refuse_lease, None
            raise refusal
        spec = jwt.decode(request.message, options={"verify_signature": False})["spec"]
        if job_id not in self.leases:
            self.leases[job_id] = Lease(
                job_id=job_id, spec=spec, attempt=1, epoch=1, fence=len(self.leases) + 1, point=new_ulid(), seq=1,
                vault=VAULT, credentials=self.credentials("first"), deadline=self.now() + timedelta(hours=8),
                renew_every_s=30.0, server_time=self.now(),
            )  # fmt: skip
        return self.leases[job_id]

    def credentials(self, name: str) -> StorageCredentials:
        return StorageCredentials(
            access_key=name, secret_key="x", expires=self.now() + timedelta(seconds=self.credentials_live_s)
        )


class _Server(ThreadingHTTPServer):
    rig: Rig
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_POST(self) -> None:
        rig = self.server.rig
        body = self.rfile.read(int(self.headers["Content-Length"]))
        trouble = rig.trouble(self.path)
        if trouble == "drop":
            self.close_connection = True
            return
        try:
            answer, status, refusal = rig.serve(self.path, body, self.headers[PROOF_HEADER], trouble), 200, None
        except Refusal as error:
            answer, status, refusal = (
                json.dumps({"code": error.code, "detail": "Refused by the rig."}).encode(),
                error.status,
                error,
            )
        if trouble == "lose":
            self.close_connection = True
            return
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string(time.time() + rig.clock_offset_s))
        self.send_header("Content-Length", str(len(answer)))
        if refusal and refusal.retry_after:
            self.send_header("Retry-After", str(refusal.retry_after))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass
