"""The work of a fleet host's jobs: a lease and a tether in, a report out."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from common.contracts.jobs import (
    BackupSpec,
    CheckReport,
    CheckSpec,
    JobReport,
    KnownObject,
    Lease,
    Progress,
    RestoreSpec,
    Stage,
)
from common.errors import Cancelled, Damaged, PrecheckFailed
from common.secret import Secret
from common.vault import names
from common.vault.documents import NamedObject
from common.vault.location import VaultLocation
from common.vault.points import StoredPoint
from common.vault.reading import LARGEST_OBJECT
from common.vault.store import Store, StoreCredentials
from common.vault.stores import Pacer, RetryingStore, open_store
from worker.backup import BackupDeps, BackupRequest, run_backup
from worker.check import CheckPlan, Endpoint, checks, raise_on_failure
from worker.fleetpins import open_pinned
from worker.identity import load_identity
from worker.onlyone import only_one
from worker.pinned import vault_folder
from worker.platform import this_host
from worker.platform.api import CheckResult, Outcome
from worker.reach import http_time
from worker.restore import RestoreDeps, RestoreRequest, run_restore
from worker.settings import WorkerSettings
from worker.target import Conflict
from worker.tether import Tether
from worker.verification import VERIFICATION, VERIFY_S, Verification

PATIENCE_S = 120.0
CHECK_VERIFY_S = 600.0
MIN_FREE = 256 * 1024 * 1024


class FleetWorks:
    """Each call is one attempt; all may be repeated."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._host = this_host()

    def backup(self, lease: Lease, spec: BackupSpec, tether: Tether) -> JobReport:
        pinned, vault = open_pinned(self._settings.state, lease.vault.vault_id)
        if lease.point is None:
            raise PrecheckFailed("The lease allots no recovery point.")
        with only_one(
            vault_folder(self._settings.state, pinned.vault_id) / "run.lock",
            what="Another backup of this host into this vault runs",
        ):
            verification = Verification(self._settings.state, self._verify_packages, clock=time.time)
            if spec.system_state:
                verification.begin()
            try:
                results = self._precheck(lease, tether)
                request = BackupRequest(
                    spec=spec,
                    job=lease.job_id,
                    attempt=lease.attempt,
                    epoch=lease.epoch,
                    fence=lease.fence,
                    point=lease.point,
                    seq=lease.seq,
                    prev=lease.prev,
                    lists=_named(lease.lists),
                    indexes=_named(lease.indexes),
                    codec=vault.config.codec,
                    chunking=vault.document.chunking,
                    reread=spec.reread or lease.seq % max(vault.config.full_reread_every, 1) == 0,
                )
                deps = BackupDeps(
                    store=_store(lease, tether),
                    host=self._host,
                    pinned=pinned,
                    state=self._settings.state,
                    clock=_now,
                    monotonic=time.monotonic,
                    random_bytes=secrets.token_bytes,
                    progress=tether.progress,
                    cancelled=_raiser(tether),
                    before_commit=tether.before_commit,
                    excludes=(self._settings.state.absolute(), *self._settings.never_back_up),
                    cores=_cores(),
                )
                report = run_backup(request, deps)
                results += verification.result()
            finally:
                verification.end()
        return report.model_copy(update={"checks": _reports(results)})

    def restore(self, lease: Lease, spec: RestoreSpec, *, root: bytes, destination: Path, tether: Tether) -> JobReport:
        if spec.destination is None and destination.exists():
            shutil.rmtree(destination)  # ours: what an earlier attempt of this job left
        store = _store(lease, tether)
        request = RestoreRequest(
            vault_id=lease.vault.vault_id,
            root=root,
            destination=destination,
            conflict=Conflict(spec.conflict.value),
            includes=spec.includes,
            expected_bytes=_size_of(store, spec),
        )
        deps = RestoreDeps(
            store=store,
            host=self._host,
            monotonic=time.monotonic,
            progress=tether.progress,
            cancelled=_raiser(tether),
        )
        return run_restore(request, deps)

    def check(self, lease: Lease, spec: CheckSpec, tether: Tether) -> JobReport:
        tether.progress(Progress(stage=Stage.CHECKING))
        plan = self._plan(lease, tether, verify_s=CHECK_VERIFY_S if spec.system_state else 0)
        begun = time.monotonic()
        results = [run() for _, run in checks(self._host, plan)]
        report = JobReport(checks=_reports(results), seconds=round(time.monotonic() - begun, 3))
        failed = [each for each in results if each.outcome is Outcome.FAIL]
        if not failed:
            return report
        error = PrecheckFailed(failed[0].reason)
        return report.model_copy(
            update={"code": error.code, "message": error.message, "next_step": failed[0].next_step or error.next_step}
        )

    def _precheck(self, lease: Lease, tether: Tether) -> list[CheckResult]:
        """All but the slow one. Raises PrecheckFailed, NoSpace."""
        tether.progress(Progress(stage=Stage.CHECKING))
        results = [run() for _, run in checks(self._host, self._plan(lease, tether, verify_s=0))]
        raise_on_failure(results)
        return results

    def _plan(self, lease: Lease, tether: Tether, *, verify_s: float) -> CheckPlan:
        identity = load_identity(self._settings.state)
        location = VaultLocation.parse(lease.vault.url)
        store = location.endpoint or f"https://s3.{location.region}.amazonaws.com"
        endpoints = [Endpoint(name="coordinator", address=identity.coordinator_url)]
        if location.scheme == "s3":
            endpoints.append(Endpoint(name="store", address=store))
        endpoints.append(Endpoint(name="queue", address=identity.queue.url, required=False))
        return CheckPlan(
            folder=self._settings.state,
            needed_bytes=MIN_FREE,
            endpoints=tuple(endpoints),
            remote_time=lambda: http_time(identity.coordinator_url),
            now=_now,
            verify_timeout_s=verify_s,
            cancelled=tether.cancelled,
        )

    def _verify_packages(self, cancelled: Callable[[], bool]) -> CheckResult | None:
        plan = CheckPlan(folder=self._settings.state, verify_timeout_s=VERIFY_S, cancelled=cancelled)
        for name, run in checks(self._host, plan):
            if name == VERIFICATION:
                return run()
        return None


def _store(lease: Lease, tether: Tether) -> Store:
    """With the newest credentials at each call, and patience for a store that is away for a while."""
    held: tuple[object, StoreCredentials | None] = (None, None)

    def newest() -> StoreCredentials | None:
        nonlocal held
        now = tether.credentials()
        if held[0] is not now:
            token = Secret(now.session_token) if now.session_token else None
            held = (
                now,
                StoreCredentials(access_key=now.access_key, secret_key=Secret(now.secret_key), session_token=token),
            )
        return held[1]

    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            _raiser(tether)()
            time.sleep(min(left, 0.2))  # noqa: TID251  # the job's process: this is its composition root

    pacer = Pacer(tether.rate_limit, monotonic=time.monotonic, sleep=sleep)
    store = open_store(VaultLocation.parse(lease.vault.url), newest, pacer=pacer)
    return RetryingStore(store, sleep=sleep, random=random.random, patience_s=PATIENCE_S)


def _raiser(tether: Tether) -> Callable[[], None]:
    def check() -> None:
        if tether.cancelled():
            raise Cancelled("The job was cancelled; what was stored is used again by the next attempt.")

    return check


def _size_of(store: Store, spec: RestoreSpec) -> int:
    """For progress and the space check alone: whole points only, and 0 when the head cannot be read."""
    if spec.includes:
        return 0
    try:
        return StoredPoint.parse(
            store.get(names.point(spec.source_host, spec.point), length=LARGEST_OBJECT)
        ).head.logical_bytes
    except Damaged:
        return 0


def _named(objects: tuple[KnownObject, ...]) -> tuple[NamedObject, ...]:
    return tuple(NamedObject(each.key, bytes.fromhex(each.sha256)) for each in objects)


def _reports(results: list[CheckResult]) -> tuple[CheckReport, ...]:
    return tuple(
        CheckReport(
            name=each.name,
            outcome=each.outcome.value,
            reason=each.reason[:4000],
            next_step=each.next_step[:4000],
            seconds=round(each.seconds, 3),
        )
        for each in results
    )


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 2
