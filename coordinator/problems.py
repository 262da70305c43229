"""The one handler that turns errors into HTTP answers: problem+json with the stable code and the next step."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from common import errors
from common.contracts.operator import Problem
from common.telemetry import get_logger
from common.vault.store import ObjectMissing

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[errors.StatewardError], int], ...] = (
    (errors.NotAuthenticated, 401),
    (errors.ClockSkewed, 401),
    (errors.PointNotFound, 404),
    (errors.HostNotFound, 404),
    (errors.VaultNotFound, 404),
    (errors.JobNotFound, 404),
    (errors.RequestTooLarge, 413),
    (errors.JobOver, 409),
    (errors.LeaseLost, 409),
    (errors.Conflicting, 409),
    (errors.AlreadyExists, 409),
    (errors.MessageExpired, 410),
    (errors.UsageError, 422),
    (errors.Busy, 429),
    (errors.Refused, 403),
    (errors.Unreachable, 503),
    (ObjectMissing, 404),
    (errors.StatewardError, 500),
)

RETRY_AFTER_S = 15


def http_status(error: errors.StatewardError) -> int:
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def problem_response(error: errors.StatewardError) -> Response:
    status = http_status(error)
    body = Problem(
        type=error.page,
        title=type(error).__name__,
        status=status,
        detail=error.message,
        code=error.code,
        next_step=error.next_step,
    )
    headers = {}
    if status in {429, 503}:
        headers["Retry-After"] = str(int(getattr(error, "retry_after_s", RETRY_AFTER_S)))
    if status == 401:  # noqa: PLR2004 - said by the standard's name beside it
        headers["WWW-Authenticate"] = "Bearer"
    return Response(body.model_dump_json(), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(Exception, _unexpected)
    app.add_exception_handler(errors.StatewardError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def _ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.StatewardError)  # noqa: S101 - registered for nothing else
    return problem_response(error)


def _invalid(_request: Request, error: Exception) -> Response:
    return problem_response(errors.RequestInvalid(invalid_reason(error)))


def invalid_reason(error: Exception) -> str:
    """The first field that is wrong, without its value (which may be a secret)."""
    listing: Callable[[], object] | None = getattr(error, "errors", None)
    found = listing() if listing else None
    if isinstance(found, list | tuple) and found and isinstance(found[0], dict):
        where = ".".join(str(part) for part in found[0].get("loc", ()) if part != "body") or "body"
        return f"Field {where}: {found[0].get('msg', 'is not of the agreed form')}."
    return "The message does not have the agreed form."


def _http(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    detail = str(getattr(error, "detail", "")) or "The request failed."
    body = Problem(
        type="about:blank", title=detail, status=status, detail=detail, code="http", next_step="See /openapi.json."
    )
    headers = getattr(error, "headers", None)
    return Response(body.model_dump_json(), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected error", path=request.url.path, exc_info=error)
    return problem_response(errors.StatewardError("The coordinator met an unexpected error; its log says more."))
