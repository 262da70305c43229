"""Metrics: of this process, and of the fleet by grouped SQL. Names stand in `common.telemetry`.

Neither a row a host in Python nor a label without bound: no job id, point id, path or message.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import case, func, select

from common import __version__
from common.errors import error_classes
from common.jobstates import EDGES
from common.telemetry import METRICS
from coordinator.hosts.models import Host, HostState
from coordinator.jobs.models import Job, OutboxMessage
from coordinator.points.models import Point
from coordinator.vaults.models import Vault

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from coordinator.clock import Clock
    from coordinator.db import Database

CACHE_S = 15.0
_ENDED = [state.value for state, then in EDGES.items() if not then]
_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
_SILENT_S = 900.0


class ProcessMetrics:
    """What this process counts, since it started."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Gauge(*_names("build_info"), ["version"], registry=self.registry).labels(__version__).set(1)
        self.events = Counter(*_names("checkin_events_total"), registry=self.registry)
        self.rejected = Counter(*_names("checkin_rejected_total"), ["reason"], registry=self.registry)
        self.lost = Counter(*_names("lease_lost_total"), registry=self.registry)
        self.queue_delay = Histogram(*_names("queue_delay_seconds"), registry=self.registry, buckets=_BUCKETS)
        self.stages = Histogram(
            *_names("job_stage_seconds"), ["kind", "stage"], registry=self.registry, buckets=_BUCKETS
        )

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


class FleetMetrics:
    """The exposition of `/metrics/fleet`, at most `CACHE_S` old."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._lock = threading.Lock()
        self._made: tuple[datetime, bytes] | None = None

    def exposition(self) -> bytes:
        with self._lock:
            now = self._clock()
            if self._made is None or (now - self._made[0]).total_seconds() >= CACHE_S:
                registry = CollectorRegistry()
                registry.register(_Collector(self._db, now))
                self._made = (now, generate_latest(registry))
            return self._made[1]


class _Collector:
    def __init__(self, db: Database, now: datetime) -> None:
        self._db = db
        self._now = now

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        with self._db.read() as session:
            yield from _hosts(session, self._now)
            yield from _jobs(session)
            yield from _vaults(session)


def _hosts(session: Session, now: datetime) -> Iterator[Metric]:
    points, seen, results, states = map(
        _gauge,
        ("host_last_point_timestamp_seconds", "host_last_seen_timestamp_seconds", "host_last_result_code", "hosts"),
    )
    numbers = {cls.code: cls.number for cls in error_classes()}
    counts = dict.fromkeys(("protected", "never", "silent", "paused", "incomplete"), 0)
    columns = select(Host.name, Vault.name, Host.state, Host.last_seen, Host.last_point, Host.last_code)
    for name, vault, state, last_seen, last_point, code in session.execute(
        columns.join(Vault, Vault.id == Host.vault_id).where(Host.state != HostState.REMOVED.value)
    ):
        points.add_metric([name, vault], _seconds(last_point))
        seen.add_metric([name], _seconds(last_seen))
        results.add_metric([name], numbers.get(code, 1) if code else 0)
        silent = last_seen is None or (now - last_seen).total_seconds() > _SILENT_S
        counts[_protection(state, silent=silent, never=last_point is None)] += 1
    for label, count in counts.items():
        states.add_metric([label], count)
    yield from (points, seen, results, states)


def _protection(state: str, *, silent: bool, never: bool) -> str:
    if state in {HostState.INCOMPLETE.value, HostState.PAUSED.value}:
        return state
    if silent:
        return "silent"
    return "never" if never else "protected"


def _jobs(session: Session) -> Iterator[Metric]:
    now, ended, pending = _gauge("jobs"), _counter("jobs_total"), _gauge("outbox_pending")
    by_state = session.execute(select(Job.state, func.count()).group_by(Job.state))
    counted = {state: count for state, count in by_state}  # noqa: C416 - rows are no pairs for `dict`
    for state in EDGES:
        now.add_metric([state.value], counted.get(state.value, 0))
    grouped = select(Job.kind, Job.state, Job.code, func.count()).where(Job.state.in_(_ENDED))
    for kind, state_text, code, count in session.execute(grouped.group_by(Job.kind, Job.state, Job.code)):
        ended.add_metric([kind, state_text, code], count)
    waiting = session.scalar(select(func.count()).select_from(OutboxMessage).where(OutboxMessage.published.is_(None)))
    pending.add_metric([], waiting or 0)
    yield from (now, ended, pending)


def _vaults(session: Session) -> Iterator[Metric]:
    names = ("vault_logical_bytes", "vault_stored_bytes", "vault_points")
    logical, stored, points = map(_gauge, names)
    read, new, sent = map(_counter, ("job_read_bytes_total", "job_new_bytes_total", "job_stored_bytes_total"))
    good = Point.verdict == "received"
    rows = session.execute(
        select(
            Vault.name,
            func.coalesce(func.sum(case((good, Point.logical_bytes))), 0),
            func.coalesce(func.sum(case((good, Point.new_bytes))), 0),
            func.coalesce(func.sum(case((good, Point.stored_bytes))), 0),
            func.count(case((good, Point.id))),
        )
        .select_from(Vault)
        .outerjoin(Point, Point.vault_id == Vault.id)
        .group_by(Vault.name)
    )
    for name, logical_sum, new_sum, stored_sum, count in rows:
        for family, value in ((logical, logical_sum), (stored, stored_sum), (points, count), (read, logical_sum)):
            family.add_metric([name], float(value))
        new.add_metric([name], float(new_sum))
        sent.add_metric([name], float(stored_sum))
    yield from (logical, stored, points, read, new, sent)


def _gauge(name: str) -> GaugeMetricFamily:
    metric = METRICS[name]
    return GaugeMetricFamily(metric.family, metric.what, labels=metric.labels)


def _counter(name: str) -> CounterMetricFamily:
    metric = METRICS[name]
    return CounterMetricFamily(metric.family, metric.what, labels=metric.labels)


def _names(name: str) -> tuple[str, str]:
    metric = METRICS[name]
    return metric.family, metric.what


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.astimezone(UTC).timestamp()


Exposition = Callable[[], bytes]
