"""Who gets in: operators' tokens, hosts' proofs, credentials files; and that every call may be repeated."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from coordinator_fixtures import Clock, Coordinator, Host, clock, coordinator, host, running, settings_for, vault

from common.contracts.checkin import CheckinRequest
from common.contracts.enrolment import EnrolRequest
from common.contracts.operator import CredentialsCreate, VaultCreate, VaultView
from common.contracts.queue import SERVER_TIME_HEADER
from common.errors import Conflicting, HostNotFound, NotAuthenticated, PortInUse, VaultNotFound
from common.secret import Secret
from common.signing import PROOF_HEADER, b64
from common.vault.location import VaultLocation
from coordinator.client import ApiClient
from coordinator.embedded import QueueAccess, StoreAccess

__all__ = ["clock", "coordinator", "host", "vault"]

pytestmark = pytest.mark.timeout(120)


def test_health_needs_no_token_and_everything_else_does(coordinator: Coordinator) -> None:
    health = httpx.get(coordinator.url + "/v1/health").json()
    assert (health["status"], health["epoch"]) == ("ok", 1)
    for path in ("/v1/vaults", "/v1/hosts", "/v1/jobs", "/v1/points"):
        answer = httpx.get(coordinator.url + path)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "not_authenticated"
    with ApiClient(coordinator.url, Secret("swt_wrong")) as stranger, pytest.raises(NotAuthenticated):
        list(stranger.hosts())


def test_secrets_are_files_of_their_owner_alone_and_not_in_the_database(
    coordinator: Coordinator, vault: VaultView, host: Host
) -> None:
    folder = coordinator.settings.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secrets = [path for path in folder.rglob("*") if path.is_file() and "stateward.db" not in path.name]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    database = b"".join(path.read_bytes() for path in folder.glob("stateward.db*"))
    assert host.enrolled is not None
    token = (folder / "admin-token").read_text().strip()
    for secret in (token, host.enrolled.queue.password, host.enrolled.domain.secret):
        assert secret.encode() not in database


def test_a_vault_is_a_bucket_with_versions_and_lock(coordinator: Coordinator, seaweedfs: StoreAccess) -> None:
    made = coordinator.api.create_vault(VaultCreate(name="Ab-"))
    assert made.state == "ready"
    bucket = VaultLocation.parse(made.url).bucket
    assert bucket == f"sw-ab-{made.id[:6]}"
    s3 = seaweedfs.janitor()
    try:
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]["ObjectLockEnabled"]
        keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    finally:
        s3.close()
    assert keys == ["config/0000000001", "vault.json"]
    with pytest.raises(Conflicting):
        coordinator.api.create_vault(VaultCreate(name="Ab-"))
    assert "Ab-" in [each.name for each in coordinator.api.vaults()]
    with pytest.raises(VaultNotFound):
        coordinator.api.vault("none")
    with pytest.raises(HostNotFound):
        coordinator.api.host("none")


def test_a_vault_whose_store_was_down_is_finished_later(
    tmp_path: Path, valkey: QueueAccess, seaweedfs: StoreAccess, clock: Clock
) -> None:
    settings = settings_for(tmp_path / "data", valkey, seaweedfs)
    down = settings.model_copy(
        update={"storage": settings.storage.model_copy(update={"endpoint": "http://127.0.0.1:9"})}
    )
    with running(down, clock) as coordinator:
        assert coordinator.api.create_vault(VaultCreate(name="Later")).state == "creating"
        with pytest.raises(Conflicting):
            coordinator.api.create_credentials("Later", CredentialsCreate())


def test_enrolling_again_with_the_same_key_takes_no_second_use(coordinator: Coordinator, vault: VaultView) -> None:
    token = coordinator.api.create_credentials("Main", CredentialsCreate(labels={"role": "db"})).token
    first = Host(coordinator.url, coordinator.clock)
    reply = first.enrol(token)
    assert first.enrol(token).model_dump(exclude={"server_time"}) == reply.model_dump(exclude={"server_time"})
    assert first.send_keys(saved=False).state == "incomplete"
    assert first.check_in().jobs == ()
    assert first.send_keys().state == "active"
    assert coordinator.api.host(first.name).labels == {"role": "db"}
    second = Host(coordinator.url, coordinator.clock)
    with pytest.raises(AssertionError, match="credentials_used_up"):
        second.enrol(token)
    thief = Host(coordinator.url, coordinator.clock, id=first.id)
    with pytest.raises(AssertionError, match="conflicting"):
        thief.enrol(coordinator.api.create_credentials("Main", CredentialsCreate()).token)


def test_credentials_that_do_not_hold_are_told_apart(
    coordinator: Coordinator, vault: VaultView, clock: Clock, tmp_path: Path, seaweedfs: StoreAccess
) -> None:
    api = coordinator.api
    foreign = api.create_credentials("Main", CredentialsCreate(host_pattern="web-*")).token
    with pytest.raises(AssertionError, match="credentials_foreign"):
        Host(coordinator.url, clock).enrol(foreign)
    Host(coordinator.url, clock, name="Web-1").enrol(foreign)
    good = api.create_credentials("Main", CredentialsCreate(valid_s=60)).token
    for altered in (good[:-6] + "AAAAAA", good.replace(".", ".e", 1), "x"):
        with pytest.raises(AssertionError, match="credentials_altered"):
            Host(coordinator.url, clock).enrol(altered)
    clock.ahead += timedelta(seconds=100)
    with pytest.raises(AssertionError, match="credentials_expired"):
        Host(coordinator.url, clock).enrol(good)
    with running(settings_for(tmp_path / "other", None, seaweedfs), clock) as other:
        other.api.create_vault(VaultCreate(name="Main"))
        token = other.api.create_credentials("Main", CredentialsCreate()).token
        with pytest.raises(AssertionError, match="credentials_altered"):
            Host(coordinator.url, clock).enrol(token)


def test_a_repeated_request_gets_its_stored_answer(coordinator: Coordinator, host: Host) -> None:
    first = host.post("/v1/checkin", CheckinRequest(), seq=500)
    again = host.post("/v1/checkin", CheckinRequest(), seq=500)
    assert first.content == again.content  # server_time included: it was not answered anew
    other = host.post("/v1/checkin", CheckinRequest(queue_reachable=False), seq=500)
    assert other.status_code == 200, "a clone's request of an equal number is another request"
    assert other.json()["next_checkin_s"] == 60.0
    earlier = host.post("/v1/checkin", CheckinRequest(), seq=3)
    assert earlier.status_code == 200, "order is never a reason to refuse"


@pytest.mark.parametrize(
    "claims", [{"htm": "GET"}, {"htu": "/v1/enrol"}, {"bsh": "0" * 64}, {"seq": -1}, {"seq": True}, {"instance": "a b"}]
)
def test_a_proof_of_another_request_is_refused(host: Host, claims: dict[str, object]) -> None:
    answer = host.post("/v1/checkin", CheckinRequest(), **claims)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


def test_a_clock_that_is_off_is_told_the_time(host: Host, clock: Clock) -> None:
    answer = host.post("/v1/checkin", CheckinRequest(), iat=clock().timestamp() - 301)
    assert (answer.status_code, answer.json()["code"]) == (401, "clock_skewed")
    assert SERVER_TIME_HEADER in answer.headers
    assert host.post("/v1/checkin", CheckinRequest(), iat=clock().timestamp() + 290).status_code == 200


def test_a_request_without_proof_with_a_strangers_or_too_long_is_refused(
    coordinator: Coordinator, host: Host, clock: Clock
) -> None:
    url = coordinator.url + "/v1/checkin"
    assert httpx.post(url, content=b"{}").status_code == 401
    assert httpx.post(url, content=b"{}", headers={PROOF_HEADER: "x" * 9000}).status_code == 401
    stranger = Host(coordinator.url, clock)
    assert stranger.post("/v1/checkin", CheckinRequest()).status_code == 401
    thief = Host(coordinator.url, clock, id=host.id)
    assert thief.post("/v1/checkin", CheckinRequest()).status_code == 401
    long = host.post("/v1/checkin", b"[" * 4_000_001)
    assert (long.status_code, long.json()["code"]) == (413, "request_too_large")
    deep = host.post("/v1/checkin", b'{"events":[{"id":"x"}]}')
    assert (deep.status_code, deep.json()["code"]) == (422, "request_invalid")
    swapped = EnrolRequest(
        token="x", host_id=host.id, host_key=b64(host.key.public_key().public_bytes_raw()), report=host.report
    )
    assert stranger.post("/v1/enrol", swapped).status_code == 401


def test_two_agents_that_take_turns_are_noted_as_clones(coordinator: Coordinator, host: Host) -> None:
    import sqlite3

    def cloned() -> object:
        connection = sqlite3.connect(coordinator.database)
        try:
            return connection.execute("select cloned from hosts where id = ?", (host.id,)).fetchone()[0]
        finally:
            connection.close()

    host.check_in()
    host.agent = "agent2"
    host.check_in()
    assert cloned() is None, "a restart is no clone"
    host.agent = "agent1"
    host.check_in()
    assert cloned() is not None


def test_a_port_in_use_is_said_so(
    coordinator: Coordinator, clock: Clock, tmp_path: Path, seaweedfs: StoreAccess
) -> None:
    port = httpx.URL(coordinator.url).port
    with pytest.raises(PortInUse), running(settings_for(tmp_path / "x", None, seaweedfs, listen_port=port), clock):
        pass


def test_a_restart_keeps_token_hosts_and_keys(
    tmp_path: Path, valkey: QueueAccess, seaweedfs: StoreAccess, clock: Clock
) -> None:
    settings = settings_for(tmp_path / "data", valkey, seaweedfs)
    with running(settings, clock) as before:
        before.api.create_vault(VaultCreate(name="Main"))
        host = Host(before.url, clock)
        reply = host.enrol(before.api.create_credentials("Main", CredentialsCreate()).token)
        token = (settings.folder / "admin-token").read_text()
    with running(settings, clock) as after:
        assert (settings.folder / "admin-token").read_text() == token
        assert json.loads((settings.folder / "api.json").read_text()) == {"url": after.url}
        host.url = after.url
        assert host.send_keys().state == "active"
        assert [each.name for each in after.api.hosts()] == [host.name]
        assert host.enrolled == reply
