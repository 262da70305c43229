"""What stands before every route: the size limit, and for hosts' routes the proof and the stored answers.

Order: size before anything is parsed; the proof before the body is; a repeated request gets its stored answer and runs
nothing; what ran is stored before it is sent. Every answer to a host carries the coordinator's time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.contracts.enrolment import EnrolRequest
from common.contracts.queue import CHECKIN_PATH, ENROL_KEYS_PATH, ENROL_PATH, SERVER_TIME_HEADER
from common.errors import NotAuthenticated, RequestInvalid, RequestTooLarge, StatewardError
from common.signing import PROOF_HEADER, load_public_key, unb64
from coordinator.access.answers import Answer, find_answer, store_answer
from coordinator.access.proofs import Proof, check_proof, claimed_host
from coordinator.hosts.models import Host, HostState
from coordinator.problems import invalid_reason, problem_response
from coordinator.service import Services

_JOB_PATH = re.compile(r"/v1/jobs/[0-9a-f-]{36}/(?:lease|renew|versions)")
_HOST_PATHS = frozenset({ENROL_PATH, ENROL_KEYS_PATH, CHECKIN_PATH})
_NOT_STORED = frozenset({401, 408, 413, 429})
"""With 5xx: refusals that may end differently when the very same request comes again."""
_SERVER_ERROR = 500

CALLER = "stateward.caller"


@dataclass(slots=True)
class _Captured:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytearray


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_host = scope["method"] == "POST" and is_host_path(scope["path"])
        try:
            body = await self._read(scope, receive)
            if not is_host:
                await self._app(scope, _replayed(body, receive), send)
                return
            proof, known = await run_in_threadpool(self._admit, scope, body)
            if known is None:
                scope[CALLER] = proof
                known = await self._run(scope, body, receive)
                await run_in_threadpool(self._keep, proof, known)
        except StatewardError as error:
            self._services.metrics.rejected.labels(error.code).inc()
            response = problem_response(error)
            headers = {name: value for name, value in response.headers.items() if name != "content-length"}
            known = Answer(response.status_code, headers, bytes(response.body))
        await _send(known, send, self._services.clock())

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._services.settings.max_body_bytes
        length = _header(scope, "content-length")
        if length is not None and (not length.isdigit() or int(length) > limit):
            raise RequestTooLarge(f"The request body is longer than {limit} bytes.")
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestInvalid("The request ended before its body did.")
            body += message.get("body", b"")
            if len(body) > limit:
                raise RequestTooLarge(f"The request body is longer than {limit} bytes.")
            if not message.get("more_body", False):
                return bytes(body)

    def _admit(self, scope: Scope, body: bytes) -> tuple[Proof, Answer | None]:
        """Check the proof and note that its host is there. Raises NotAuthenticated, ClockSkewed, RequestInvalid."""
        header = _header(scope, PROOF_HEADER)
        host_id = claimed_host(header)
        assert header is not None  # noqa: S101 - or it would claim no host
        joining = scope["path"] == ENROL_PATH
        now = self._services.clock()
        public_key = _joining_key(body, host_id) if joining else self._known_key(host_id)
        query = scope.get("query_string", b"").decode("latin-1")
        proof = check_proof(
            header,
            key=load_public_key(public_key),
            host=host_id,
            method=scope["method"],
            path=scope["path"] + (f"?{query}" if query else ""),
            body=body,
            now=now,
        )
        with self._services.db.read() as session:
            return proof, find_answer(session, self._services.keys, proof)

    def _known_key(self, host_id: str) -> bytes:
        with self._services.db.read() as session:
            host = session.get(Host, host_id)
        if host is None or host.state == HostState.REMOVED.value:
            raise NotAuthenticated("The host is not registered here, or was removed.")
        return host.public_key

    async def _run(self, scope: Scope, body: bytes, receive: Receive) -> Answer:
        captured = _Captured(_SERVER_ERROR, [], bytearray())

        async def capture(message: Message) -> None:
            if message["type"] == "http.response.start":
                captured.status, captured.headers = message["status"], list(message.get("headers", ()))
            elif message["type"] == "http.response.body":
                captured.body += message.get("body", b"")

        await self._app(scope, _replayed(body, receive), capture)
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in captured.headers
            if name.lower() != b"content-length"
        }
        return Answer(captured.status, headers, bytes(captured.body))

    def _keep(self, proof: Proof, answer: Answer) -> None:
        now = self._services.clock()
        with self._services.db.write() as session:
            host = session.get(Host, proof.host)
            if host is None:
                return  # a registration that was refused: nobody to keep it for
            _note(host, proof, now)
            if answer.status < _SERVER_ERROR and answer.status not in _NOT_STORED:
                store_answer(session, self._services.keys, proof, answer, now=now)


def is_host_path(path: str) -> bool:
    return path in _HOST_PATHS or _JOB_PATH.fullmatch(path) is not None


def _note(host: Host, proof: Proof, now: datetime) -> None:
    """Seen now, and by which agent: one that comes back after another one took over is a clone."""
    host.last_seen, host.clock_offset_s = now, proof.offset_s
    if proof.agent == host.agent_base:
        return
    if proof.agent == host.agent_base_before:
        host.cloned = now
    host.agent_base_before, host.agent_base = host.agent_base, proof.agent


def _joining_key(body: bytes, host_id: str) -> bytes:
    """The key in the message itself: registering proves that the host has it."""
    try:
        request = EnrolRequest.model_validate_json(body)
        public_key = unb64(request.host_key)
    except ValidationError as error:
        raise RequestInvalid(invalid_reason(error)) from error
    except ValueError as error:
        raise RequestInvalid("Field host_key is not base64.") from error
    if request.host_id != host_id:
        raise NotAuthenticated("The proof is another host's than the registration.")
    return public_key


def _header(scope: Scope, name: str) -> str | None:
    wanted = name.lower().encode()
    found = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted]
    return found[0] if len(found) == 1 else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _send(answer: Answer, send: Send, now: datetime) -> None:
    headers = {**answer.headers, SERVER_TIME_HEADER: now.isoformat(), "content-length": str(len(answer.body))}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": answer.body})
