"""A host's life against the whole coordinator: enrol, job through the queue, lease, renewals, result, removal."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

import httpx
import pytest
import redis
from coordinator_fixtures import (
    Clock,
    Coordinator,
    Host,
    clock,
    coordinator,
    enrolled_host,
    host,
    job_in,
    vault,
)

from common import __version__
from common.contracts.jobs import BackupSpec, CheckSpec, JobReport, Lease, RestoreKey, RestoreSpec, Stage
from common.contracts.operator import GrantCreate, JobCreate, JobView, VaultView
from common.errors import JobOver, StoreDenied, WrongPassphrase
from common.ids import new_ulid, new_uuid
from common.jobstates import JobState
from common.secret import Secret
from common.signing import b64, unb64
from common.telemetry import METRICS
from common.vault import names
from common.vault.grant import GrantTerms, new_restore_key, open_grant, sign_restore_key
from common.vault.keys import generate_passphrase
from common.vault.location import VaultLocation
from common.vault.pages import PackRef, pages_of_packs
from common.vault.points import Head, write_point
from common.vault.store import Store, StoreCredentials
from common.vault.stores import open_store
from coordinator.cli.granting import Wanted, grant_for

__all__ = ["clock", "coordinator", "host", "vault"]

pytestmark = pytest.mark.timeout(120)


def ask(coordinator: Coordinator, host: Host, **fields: object) -> JobView:
    return coordinator.api.create_job(JobCreate(host=host.id, spec=BackupSpec(), **fields))  # type: ignore[arg-type]


def worker_store(lease: Lease) -> Store:
    given = lease.credentials
    credentials = StoreCredentials(
        access_key=given.access_key, secret_key=Secret(given.secret_key), session_token=Secret(given.session_token)
    )
    return open_store(VaultLocation.parse(lease.vault.url), credentials)


def commit(host: Host, lease: Lease, *, pack: bytes | None = None, **changes: object) -> bytes:
    """A small recovery point, written with the lease's own credentials."""
    store = worker_store(lease)
    assert host.keys is not None
    assert host.enrolled is not None
    assert lease.point is not None
    data = pack or secrets.token_bytes(100_000)
    sha = hashlib.sha256(data).digest()
    if pack is None:
        store.put(names.pack(host.id, sha), data, sha256=sha)
    page = pages_of_packs(host.id, [PackRef(host.id, sha, len(data))], secrets.token_bytes)[0]
    store.put(page.named.key, page.data)
    fields: dict[str, object] = {
        "vault": lease.vault.vault_id,
        "host": host.id,
        "point": lease.point,
        "seq": lease.seq,
        "prev_point": lease.prev.point if lease.prev else "",
        "prev_sha256": bytes.fromhex(lease.prev.sha256) if lease.prev else b"",
        "job": lease.job_id,
        "attempt": lease.attempt,
        "epoch": lease.epoch,
        "fence": lease.fence,
        "source": "system-state",
        "created": host.clock().isoformat(),
        "domain": host.enrolled.domain.domain_id,
        "codec": "raw",
        "key_id": host.keys.key_id,
        "config_seq": host.enrolled.config_seq,
        "config_sha256": hashlib.sha256(unb64(host.enrolled.config_object)).digest(),
        "lists": (page.named.sha256,),
        "indexes": (),
        "files": 3,
        "logical_bytes": len(data),
        "new_bytes": len(data),
        "stored_bytes": len(data),
        "packs": 1,
    }
    head = Head(**(fields | changes))  # type: ignore[arg-type]
    point = write_point(head, b"the root", recovery_public=host.keys.recovery_public, signer=host.key)
    store.put(names.point(host.id, lease.point), point)
    return point


def backed_up(coordinator: Coordinator, host: Host) -> Lease:
    job = ask(coordinator, host)
    message = host.pop()
    assert message is not None
    lease = host.lease(job.id, message)
    commit(host, lease)
    report = JobReport(stage_seconds={"uploading": 0.5})
    host.check_in(host.event(lease, JobState.COMMITTED, report=report))
    job_in(coordinator, job.id, JobState.COMPLETED)
    return lease


def test_a_backup_from_the_queue_to_the_catalogue(coordinator: Coordinator, host: Host) -> None:
    job = ask(coordinator, host)
    assert job.state is JobState.QUEUED
    message = host.pop()
    assert message is not None
    lease = host.lease(job.id, message)
    assert (lease.attempt, lease.seq, lease.prev) == (1, 1, None)
    assert not host.renew(lease).cancel
    shown = coordinator.api.job(job.id)
    assert shown.state is JobState.RUNNING
    assert shown.progress is not None
    assert shown.progress.stage is Stage.UPLOADING
    assert host.renew(lease).watched, "somebody has just looked"

    point = commit(host, lease)
    event = host.event(lease, JobState.COMMITTED)
    assert host.check_in(event).accepted == (event.id,)
    done = job_in(coordinator, job.id, JobState.COMPLETED)
    assert done.report is not None
    (listed,) = coordinator.api.points(host=host.id)
    assert (listed.point, listed.verdict, listed.seq) == (lease.point, "received", 1)
    assert coordinator.api.host(host.name).last_point is not None

    again = ask(coordinator, host)
    second_message = host.pop()
    assert second_message is not None
    second = host.lease(again.id, second_message)
    assert second.seq == 2
    assert second.prev is not None
    assert second.prev.sha256 == hashlib.sha256(point).hexdigest()
    assert second.fence > lease.fence
    assert [known.key.split("/")[0] for known in second.lists] == ["lists"]


def test_a_job_reaches_its_host_without_the_queue(coordinator: Coordinator, host: Host) -> None:
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    assert host.check_in().jobs == ()
    host.check_in(host.event(lease, JobState.FAILED, report=JobReport(code="no_space", message="Full.")))
    failed = coordinator.api.job(job.id)
    assert (failed.state, failed.code, failed.reason) == (JobState.FAILED, "no_space", "Full.")


def test_the_same_request_id_gets_the_same_lease_and_a_restarted_host_resumes_it(
    coordinator: Coordinator, host: Host
) -> None:
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    request = new_uuid()
    first = host.lease(job.id, message, request)
    again = host.lease(job.id, message, request)
    resumed = host.lease(job.id, message)
    assert {(each.attempt, each.fence, each.point) for each in (first, again, resumed)} == {
        (1, first.fence, first.point)
    }


def test_another_hosts_message_or_an_altered_one_gets_no_lease(
    coordinator: Coordinator, vault: VaultView, host: Host
) -> None:
    other = enrolled_host(coordinator, vault)
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    for asker, shown in ((other, message), (host, message[:-8] + "AAAAAAAA"), (host, "rubbish")):
        answer = asker.ask_lease(job.id, shown)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_trusted")


def test_a_message_first_shown_after_its_window_is_refused_and_the_job_is_missed(
    coordinator: Coordinator, host: Host, clock: Clock
) -> None:
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    clock.ahead += timedelta(days=2)
    answer = host.ask_lease(job.id, message)
    assert answer.json()["code"] in {"message_expired", "job_over"}  # the janitor may have been first
    assert job_in(coordinator, job.id, JobState.MISSED).code == "missed"


def test_a_second_backup_of_a_host_waits_for_the_first(coordinator: Coordinator, host: Host) -> None:
    first, second = ask(coordinator, host), ask(coordinator, host)
    messages = host.check_in().jobs
    host.lease(first.id, messages[0])
    answer = host.ask_lease(second.id, messages[1])
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["code"] == "not_yet"


def test_cancelling(coordinator: Coordinator, host: Host) -> None:
    waiting = ask(coordinator, host)
    assert coordinator.api.cancel_job(waiting.id).state is JobState.CANCELLED
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    host.renew(lease)
    assert coordinator.api.cancel_job(job.id).state is JobState.CANCELLING
    assert host.renew(lease).cancel
    assert host.check_in().cancels == (job.id,)
    host.check_in(host.event(lease, JobState.CANCELLED))
    assert coordinator.api.cancel_job(job.id).state is JobState.CANCELLED
    assert host.post(f"/v1/jobs/{job.id}/renew", renewal(lease)).json()["code"] == "lease_lost"


def renewal(lease: Lease) -> bytes:
    return b'{"epoch":%d,"fence":%d,"progress":{"stage":"uploading"}}' % (lease.epoch, lease.fence)


def test_a_lost_lease_comes_back_by_a_renewal_or_by_asking_again(
    coordinator: Coordinator, host: Host, clock: Clock
) -> None:
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    clock.ahead += timedelta(seconds=310)
    job_in(coordinator, job.id, JobState.LOST)
    assert not host.renew(lease).cancel
    assert coordinator.api.job(job.id).state is JobState.RUNNING
    clock.ahead += timedelta(seconds=310)
    job_in(coordinator, job.id, JobState.LOST)
    resumed = host.lease(job.id, message)
    assert (resumed.attempt, resumed.fence, resumed.point) == (1, lease.fence, lease.point)


def test_a_job_that_is_lost_three_times_has_failed(coordinator: Coordinator, host: Host, clock: Clock) -> None:
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    for attempt in (1, 2, 3):
        clock.ahead += timedelta(minutes=10)  # five until it is lost, and the back-off
        lost = job_in(coordinator, job.id, JobState.QUEUED, JobState.FAILED)
        assert (lost.attempt, lost.code) == (attempt, "lease_lost")
        if lost.state is JobState.QUEUED:
            assert host.check_in().jobs == (message,)
            fresh = host.lease(job.id, message)
            assert fresh.attempt == attempt + 1
            assert fresh.fence > lease.fence
            assert host.post(f"/v1/jobs/{job.id}/renew", renewal(lease)).json()["code"] == "lease_lost"
            lease = fresh
    assert lost.state is JobState.FAILED


def test_a_lost_job_whose_point_turns_up_is_committed(coordinator: Coordinator, host: Host, clock: Clock) -> None:
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    commit(host, lease)
    clock.ahead += timedelta(minutes=6)
    job_in(coordinator, job.id, JobState.COMPLETED)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"fence": 99}, "fence"), ({"seq": 7}, "follow"), ({"job": "another"}, "follow"), ({"packs": 1}, "hold whole")],
)
def test_a_point_that_does_not_hold_fails_the_job(
    coordinator: Coordinator, host: Host, changes: dict[str, object], words: str
) -> None:
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    commit(host, lease, pack=secrets.token_bytes(100_000) if words == "hold whole" else None, **changes)
    host.check_in(host.event(lease, JobState.COMMITTED))
    failed = job_in(coordinator, job.id, JobState.FAILED)
    assert failed.code == "damaged"
    assert words in failed.reason
    assert list(coordinator.api.points(host=host.id)) == []


def test_events_are_taken_in_once_and_rejected_with_reasons(coordinator: Coordinator, host: Host) -> None:
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    wrong = [
        host.event(lease, JobState.COMPLETED),
        host.event(lease.model_copy(update={"job_id": new_uuid()}), JobState.FAILED),
        host.event(lease.model_copy(update={"fence": lease.fence + 1}), JobState.FAILED),
        host.event(lease.model_copy(update={"attempt": 2}), JobState.FAILED),
        host.event(lease.model_copy(update={"point": new_ulid()}), JobState.COMMITTED),
    ]
    reply = host.check_in(*wrong)
    assert [rejected.id for rejected in reply.rejected] == [event.id for event in wrong]
    assert all(rejected.reason for rejected in reply.rejected)
    failed = host.event(lease, JobState.FAILED, report=JobReport(code="no_space"))
    assert host.check_in(failed, failed).accepted == (failed.id, failed.id)
    assert host.check_in(failed, host.event(lease, JobState.CANCELLED)).rejected == ()
    assert coordinator.api.job(job.id).state is JobState.FAILED


def test_a_check_runs_to_its_end_by_the_hosts_word(coordinator: Coordinator, host: Host) -> None:
    job = coordinator.api.create_job(JobCreate(host=host.name, spec=CheckSpec()))
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    assert lease.point is None
    host.check_in(host.event(lease, JobState.COMPLETED))
    assert coordinator.api.job(job.id).state is JobState.COMPLETED


def test_a_lease_writes_under_its_own_prefixes_and_exactly_its_point(
    coordinator: Coordinator, vault: VaultView, host: Host
) -> None:
    other = enrolled_host(coordinator, vault)
    job = ask(coordinator, host)
    (message,) = host.check_in().jobs
    lease = host.lease(job.id, message)
    store = worker_store(lease)
    store.put(names.lease(host.id, new_ulid()), b"lease")
    own = names.pack(host.id, hashlib.sha256(b"pack").digest())
    store.put(own, b"pack")
    assert store.get(own) == b"pack"
    for forbidden in (
        names.pack(other.id, hashlib.sha256(b"pack").digest()),
        names.point(host.id, new_ulid()),
        names.state(host.id, lease.point or "", new_ulid()),
        names.host_record(host.id, new_ulid()),
        "config/0000000002",
    ):
        with pytest.raises(StoreDenied):
            store.put(forbidden, b"no")
    with pytest.raises(StoreDenied):
        list(store.list(""))
    with pytest.raises(StoreDenied):
        store.get(names.VAULT)
    versions = host.post(f"/v1/jobs/{job.id}/versions", b'{"keys":["%s"]}' % own.encode()).json()
    assert len(versions["versions"][own]) == 1
    refused = host.post(f"/v1/jobs/{job.id}/versions", b'{"keys":["packs/%s/x"]}' % other.id.encode())
    assert refused.status_code == 403


def test_a_restore_waits_for_its_grant_and_the_coordinator_cannot_read_it(coordinator: Coordinator, host: Host) -> None:
    backup = backed_up(coordinator, host)
    assert backup.point is not None
    spec = RestoreSpec(point=backup.point, source_host=host.id)
    job = coordinator.api.create_job(JobCreate(host=host.id, spec=spec))
    message = host.pop()
    assert message is not None
    lease = host.lease(job.id, message)
    assert worker_store(lease).get(names.point(host.id, backup.point))
    with pytest.raises(StoreDenied):
        worker_store(lease).put(names.lease(host.id, new_ulid()), b"no")
    with pytest.raises(JobOver):
        coordinator.api.send_grant(job.id, GrantCreate(grant=b64(b"too early")))
    seed, public = new_restore_key()
    signature = sign_restore_key(public, job_id=job.id, signer=host.key)
    key = RestoreKey(public_key=b64(public), signature=b64(signature))
    assert host.renew(lease, Stage.AWAITING_GRANT, restore_key=key).grant is None
    view = coordinator.api.grant(job.id)
    wanted = Wanted(job_id=job.id, target_host=host.id, spec=spec)
    with pytest.raises(WrongPassphrase):
        grant_for(view, wanted, generate_passphrase())
    coordinator.api.send_grant(job.id, grant_for(view, wanted, host.passphrase))
    given = host.renew(lease, Stage.AWAITING_GRANT).grant
    assert given is not None
    assert lease.vault is not None
    terms = GrantTerms(
        vault_id=lease.vault.vault_id,
        job_id=job.id,
        source_host=host.id,
        point=backup.point,
        target_host=host.id,
        destination=None,
        conflict=spec.conflict.value,
        includes=spec.includes,
    )
    root = open_grant(unb64(given), seed, terms, source=host.key.public_key())
    assert root == b"the root"
    host.check_in(host.event(lease, JobState.COMPLETED_WITH_WARNINGS))
    assert coordinator.api.job(job.id).state is JobState.COMPLETED_WITH_WARNINGS


def test_a_removed_host_is_out_of_queue_and_api(coordinator: Coordinator, host: Host) -> None:
    job = ask(coordinator, host)
    assert host.pop() is not None
    assert coordinator.api.remove_host(host.name).state == "removed"
    assert coordinator.api.job(job.id).state is JobState.CANCELLED
    assert host.post("/v1/checkin", b"{}").status_code == 401
    with pytest.raises(redis.AuthenticationError):
        host.pop(1)
    assert host.id not in [each.id for each in coordinator.api.hosts()]
    assert host.id in [each.id for each in coordinator.api.hosts(removed=True)]


def test_metrics_of_process_and_fleet_for_those_who_may(coordinator: Coordinator, host: Host) -> None:
    backed_up(coordinator, host)
    token = (coordinator.settings.folder / "admin-token").read_text().strip()
    for path in ("/metrics", "/metrics/fleet"):
        assert httpx.get(coordinator.url + path).status_code == 404
    headers = {"Authorization": f"Bearer {token}"}
    process = httpx.get(coordinator.url + "/metrics", headers=headers).text
    assert number(process, "stateward_checkin_events_total") >= 1
    assert number(process, 'stateward_job_stage_seconds_count{kind="backup",stage="uploading"}') >= 1
    assert number(process, f'stateward_build_info{{version="{__version__}"}}') == 1
    fleet = httpx.get(coordinator.url + "/metrics/fleet", headers=headers).text
    assert number(fleet, 'stateward_jobs_total{code="",kind="backup",result="completed"}') >= 1
    assert number(fleet, 'stateward_jobs{state="committed"}') == 0
    assert number(fleet, 'stateward_hosts{state="protected"}') >= 1
    assert number(fleet, 'stateward_vault_points{vault="Main"}') >= 1
    for metric in METRICS.values():
        assert metric.exposed in process + fleet


def number(exposition: str, series: str) -> float:
    return float(next(line for line in exposition.splitlines() if line.startswith(series)).rpartition(" ")[2])
