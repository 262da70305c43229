"""Who calls, for the routes: dependencies that FastAPI resolves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from common.contracts.operator import Problem
from common.errors import NotAuthenticated
from common.signing import PROOF_HEADER
from coordinator.access.gate import CALLER
from coordinator.access.models import ApiToken
from coordinator.access.proofs import Proof
from coordinator.access.tokens import check_token
from coordinator.service import Services


def services_of(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)  # noqa: S101 - the factory puts it there
    return services


_PROOF = APIKeyHeader(name=PROOF_HEADER, scheme_name="proof", auto_error=False, description="signed by the host")
_TOKEN = HTTPBearer(scheme_name="token", auto_error=False, description="an operator's token")
"""Both are named for /openapi.json alone: the gate checks the proof, `calling_operator` the token."""


def calling_host(request: Request, _proof: Annotated[object, Security(_PROOF)]) -> str:
    """The id of the host whose proof the gate has checked."""
    proof = request.scope.get(CALLER)
    if not isinstance(proof, Proof):
        raise NotAuthenticated("The request carries no proof of its host.")
    return proof.host


def calling_operator(
    request: Request, services: Annotated[Services, Depends(services_of)], _token: Annotated[object, Security(_TOKEN)]
) -> ApiToken:
    """Raises NotAuthenticated. Every token may do everything until roles come."""
    with services.db.read() as session:
        return check_token(session, request.headers.get("authorization"), now=services.clock())


With = Annotated[Services, Depends(services_of)]
CallingHost = Annotated[str, Depends(calling_host)]
Operator = Depends(calling_operator)
Limit = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(max_length=200)]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": what}
    for status, what in {
        401: "no valid token or proof",
        403: "refused",
        404: "not found",
        409: "the state does not allow it",
        422: "the message does not have the agreed form",
        429: "not yet: see Retry-After",
        503: "the store or the queue does not answer",
    }.items()
}
