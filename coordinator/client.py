"""The API as programs use it: typed calls with httpx, problems back into our errors."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import ValidationError

from common.contracts.base import Contract
from common.contracts.operator import (
    CredentialsCreate,
    CredentialsView,
    GrantCreate,
    GrantView,
    HealthView,
    HostPage,
    HostView,
    JobCreate,
    JobPage,
    JobView,
    PointPage,
    PointView,
    Problem,
    VaultCreate,
    VaultPage,
    VaultView,
)
from common.errors import CoordinatorUnavailable, NotYet, Refused, StatewardError, error_classes
from common.secret import Secret

Reply = TypeVar("Reply", bound=Contract)
Listing = TypeVar("Listing", VaultPage, HostPage, JobPage, PointPage)

_SERVER_ERROR = 500


class ApiClient:
    """Of one coordinator. Proxies come from the usual environment. Close it, or use it as a context.

    Every call raises CoordinatorUnavailable when there is no answer, and the error whose code the answer names else.
    """

    def __init__(self, url: str, token: Secret[str], *, timeout_s: float = 60.0, ca_file: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        verify = httpx.create_ssl_context(verify=ca_file) if ca_file else True
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def health(self) -> HealthView:
        return self._call("GET", "/v1/health", HealthView)

    def create_vault(self, wanted: VaultCreate) -> VaultView:
        return self._call("POST", "/v1/vaults", VaultView, wanted)

    def vaults(self) -> Iterator[VaultView]:
        for page in self._pages("/v1/vaults", VaultPage):
            yield from page.items

    def vault(self, name: str) -> VaultView:
        return self._call("GET", f"/v1/vaults/{name}", VaultView)

    def create_credentials(self, vault: str, wanted: CredentialsCreate) -> CredentialsView:
        return self._call("POST", f"/v1/vaults/{vault}/credentials", CredentialsView, wanted)

    def hosts(self, *, removed: bool = False) -> Iterator[HostView]:
        for page in self._pages("/v1/hosts", HostPage, {"removed": str(removed).lower()}):
            yield from page.items

    def host(self, name: str) -> HostView:
        return self._call("GET", f"/v1/hosts/{name}", HostView)

    def remove_host(self, name: str) -> HostView:
        return self._call("DELETE", f"/v1/hosts/{name}", HostView)

    def create_job(self, wanted: JobCreate) -> JobView:
        return self._call("POST", "/v1/jobs", JobView, wanted)

    def jobs(self, *, host: str | None = None, state: str | None = None) -> Iterator[JobView]:
        """Newest first; a page is asked for when it is reached."""
        filters = {name: value for name, value in (("host", host), ("state", state)) if value}
        for page in self._pages("/v1/jobs", JobPage, filters):
            yield from page.items

    def job(self, job_id: str) -> JobView:
        return self._call("GET", f"/v1/jobs/{job_id}", JobView)

    def cancel_job(self, job_id: str) -> JobView:
        return self._call("POST", f"/v1/jobs/{job_id}/cancel", JobView)

    def grant(self, job_id: str) -> GrantView:
        return self._call("GET", f"/v1/jobs/{job_id}/grant", GrantView)

    def send_grant(self, job_id: str, grant: GrantCreate) -> JobView:
        return self._call("POST", f"/v1/jobs/{job_id}/grant", JobView, grant)

    def points(self, *, host: str | None = None) -> Iterator[PointView]:
        """Newest first."""
        for page in self._pages("/v1/points", PointPage, {"host": host} if host else {}):
            yield from page.items

    def point(self, point_id: str) -> PointView:
        return self._call("GET", f"/v1/points/{point_id}", PointView)

    def _pages(self, path: str, into: type[Listing], filters: dict[str, str] | None = None) -> Iterator[Listing]:
        cursor: str | None = None
        while True:
            query = {**(filters or {}), **({"cursor": cursor} if cursor else {})}
            page = self._call("GET", path, into, query=query)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def _call(
        self,
        method: str,
        path: str,
        into: type[Reply],
        message: Contract | None = None,
        *,
        query: dict[str, str] | None = None,
    ) -> Reply:
        content = None if message is None else message.model_dump_json()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            answer = self._http.request(method, path, content=content, headers=headers, params=query or None)
        except httpx.HTTPError as error:
            raise CoordinatorUnavailable(
                f"The coordinator at {self.url} does not answer: {error}.",
                next_step="Start it with `stateward up` or `stateward serve`, or name it with --api or --data.",
            ) from error
        if answer.is_error:
            raise _error(answer)
        try:
            return into.model_validate_json(answer.content)
        except ValidationError as error:
            raise CoordinatorUnavailable(
                f"The answer of {self.url}{path} is not of this program's version.",
                next_step="Use a stateward of the coordinator's version.",
            ) from error


def _error(answer: httpx.Response) -> StatewardError:
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        return CoordinatorUnavailable(f"{answer.url} answered with status {answer.status_code}.")
    known = {cls.code: cls for cls in error_classes() if cls not in {StatewardError, NotYet}}
    fallback = CoordinatorUnavailable if answer.status_code >= _SERVER_ERROR else Refused
    return known.get(problem.code, fallback)(problem.detail, next_step=problem.next_step)
