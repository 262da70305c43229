"""Logs: no secret is written, by type or by name, at any depth; context is bound."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from pydantic import SecretStr

from common.secret import Secret
from common.telemetry import METRICS, Kind, bound, configure_logging, get_logger


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_not_logged(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    configure_logging(json=as_json)
    log = get_logger("x")
    hidden = "hunter2"
    log.info("e", password=hidden, nested={"session_token": hidden, "list": [Secret(hidden), SecretStr(hidden)]})
    log.info("e", some=Secret(hidden), credentials={"a": hidden}, plain=f"{Secret(hidden)}")
    password = Secret(hidden)
    try:
        int(f"not a number: {password}")
    except ValueError:
        log.exception("e")
    logging.getLogger("library").warning("said %s", Secret(hidden))
    told = capsys.readouterr()
    assert told.out == ""
    assert hidden not in told.err
    assert "said <secret>" in told.err


def test_lines_carry_their_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    with bound(job_id="j", host="h"):
        get_logger("x").info("event", stage="uploading")
    line = json.loads(capsys.readouterr().err)
    assert {line[name] for name in ("event", "job_id", "host", "stage", "level")} == {
        "event", "j", "h", "uploading", "info"
    }  # fmt: skip


def test_names_of_metrics() -> None:
    for metric in METRICS.values():
        assert metric.exposed.startswith("stateward_")
        assert metric.exposed.endswith("_total") is (metric.kind is Kind.COUNTER)
        assert set(metric.labels) <= {
            "host",
            "vault",
            "policy",
            "kind",
            "stage",
            "result",
            "code",
            "state",
            "reason",
            "version",
        }
