"""The description of the API is complete: every route says who may call it, what it takes, and what it answers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coordinator.app import make_app
from coordinator.db import Database
from coordinator.keys import open_keys
from coordinator.metrics import ProcessMetrics
from coordinator.service import Services
from coordinator.settings import load_settings
from coordinator.storage import Storage


def test_openapi_is_complete(tmp_path: Path) -> None:
    settings = load_settings(data=tmp_path)
    db = Database(settings.sql_url)
    services = Services(
        settings=settings, db=db, keys=open_keys(settings.folder), storage=Storage(settings.storage), queue_users=None,
        metrics=ProcessMetrics(), clock=lambda: datetime(2026, 1, 1, tzinfo=UTC), public_url="",
    )  # fmt: skip
    described: dict[str, Any] = make_app(services).openapi()
    db.dispose()
    assert set(described["components"]["securitySchemes"]) == {"proof", "token"}
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            good = next(answer for status, answer in route["responses"].items() if status.startswith("2"))
            assert "$ref" in good["content"]["application/json"]["schema"], (path, method)
            assert path == "/v1/health" or route["security"], (path, method)
            assert route.get("description"), (path, method)
