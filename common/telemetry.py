"""Logs and the one table of metric names.

Logs are structlog lines on stderr, JSON or for people, one event a line, with `job_id`, `host`, `stage` bound once by
context (`bound`). Secrets cannot be logged: a `Secret` prints `<secret>`, and a value under a name that smells of one
is replaced, at any depth.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from pydantic import SecretBytes, SecretStr

from common.secret import Secret

HIDDEN = "<secret>"

_SECRET_NAMES = (
    "password", "passphrase", "secret", "token", "private_key", "credentials", "authorization", "cookie", "seed",
    "wrapping", "session_token", "grant", "proof",
)  # fmt: skip
_HARMLESS = frozenset({"token_name", "token_id", "credentials_id", "credentials_expire"})


def configure_logging(*, json: bool, level: int = logging.INFO) -> None:
    """Once per process, by its composition root; library loggers come along."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "botocore", "boto3", "urllib3", "alembic", "kombu", "amqp"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


@contextmanager
def bound(**context: str) -> Iterator[None]:
    """Every line logged inside carries these (`job_id`, `host`, `stage`)."""
    with structlog.contextvars.bound_contextvars(**context):
        yield


def hide_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor that no line passes by."""
    for name in list(event):
        event[name] = _hidden(name, event[name])
    return event


def _hidden(name: str, value: Any) -> Any:
    if isinstance(value, Secret | SecretStr | SecretBytes):
        return HIDDEN
    lowered = name.lower()
    if lowered not in _HARMLESS and any(part in lowered for part in _SECRET_NAMES):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(inner): _hidden(str(inner), part) for inner, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden("", part) for part in value]
    return value


class Kind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    exposed: str
    """As a dashboard asks for it; a counter's ends in `_total`."""
    kind: Kind
    labels: tuple[str, ...]
    what: str

    @property
    def family(self) -> str:
        """As prometheus-client wants it: it adds `_total` itself."""
        return self.exposed.removesuffix("_total") if self.kind is Kind.COUNTER else self.exposed


def _table(*rows: tuple[str, Kind, str, str]) -> dict[str, Metric]:
    return {name: Metric(f"stateward_{name}", kind, tuple(labels.split()), what) for name, kind, labels, what in rows}


G, C, H = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM

METRICS: dict[str, Metric] = _table(
    ("host_last_point_timestamp_seconds", G, "host vault", "newest good recovery point; 0 when there is none"),
    ("host_last_seen_timestamp_seconds", G, "host", "last message of the host"),
    ("host_last_result_code", G, "host", "0, or the number of the code of the last result"),
    ("hosts", G, "state", "hosts by what is known of their protection"),
    ("jobs_total", C, "kind result code", "jobs that ended, missed ones included"),
    ("jobs", G, "state", "jobs by state"),
    ("job_stage_seconds", H, "kind stage", "time of a job in a stage"),
    ("queue_delay_seconds", H, "", "from due to leased"),
    ("job_read_bytes_total", C, "vault", "bytes of source that backups covered"),
    ("job_new_bytes_total", C, "vault", "bytes after deduplication"),
    ("job_stored_bytes_total", C, "vault", "bytes after compression"),
    ("vault_logical_bytes", G, "vault", "sum of the logical sizes of accepted points"),
    ("vault_stored_bytes", G, "vault", "bytes that the points added to the vault"),
    ("vault_points", G, "vault", "accepted recovery points"),
    ("checkin_events_total", C, "", "events taken in"),
    ("checkin_rejected_total", C, "reason", "events and requests refused"),
    ("outbox_pending", G, "", "messages the queue has not confirmed"),
    ("lease_lost_total", C, "", "leases that were not renewed in time"),
    ("build_info", G, "version", "1, with the version of this program"),
)
"""The one table of names (prefix `stateward_`); dashboards, alerts and documentation are kept in step with it."""
