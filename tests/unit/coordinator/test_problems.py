"""Every error of the tree has an HTTP status, and becomes the same error on the other side."""

from __future__ import annotations

import httpx
import pytest

from common.errors import NotYet, StatewardError, error_classes
from coordinator.client import _error
from coordinator.problems import http_status, problem_response


@pytest.mark.parametrize("kind", [cls for cls in error_classes() if cls is not StatewardError])
def test_an_error_travels(kind: type[StatewardError]) -> None:
    error = kind("What happened.", next_step="What to do.")
    assert 400 <= http_status(error) < 600
    response = problem_response(error)
    request = httpx.Request("GET", "http://coordinator/v1")
    back = _error(httpx.Response(response.status_code, content=bytes(response.body), request=request))
    assert (back.message, back.next_step) == ("What happened.", "What to do.")
    if kind is not NotYet:
        assert type(back) is kind


def test_when_to_come_again_is_said() -> None:
    assert problem_response(NotYet("Full.", retry_after_s=42)).headers["retry-after"] == "42"
