"""`kill -9` of each process of the embedded system in the middle of a backup: the job ends well, nothing is lost or sent
twice. And what may be seen of a system that runs: who is refused, what is measured, and that no secret is shown."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import redis
from botocore.config import Config
from e2e_programs import (
    Done,
    Process,
    Started,
    below,
    content_of,
    environment,
    left_of,
    operator,
    run,
    started,
    until,
    worker,
)

pytestmark = pytest.mark.timeout(280)
MIB = 1 << 20
SIZE = 128 * MIB
PACK = 18 * MIB
SENT_AGAIN = 3
"""Packs that may be sent again: those that were on their way when the kill came."""
MARKER = "a-marker-of-this-test-that-nobody-else-has"
WORDS = {
    "valkey": "valkey-server",
    "store": "weed -logtostderr",
    "job": "-m worker run-job",
    "agent": "-m worker run --state",
    "coordinator": "-m coordinator serve",
}


pytestmark = pytest.mark.rig


@dataclass(frozen=True, kw_only=True)
class System:
    """`stateward up`, running."""

    folder: Path
    data: Path
    program: Started
    vault: dict[str, Any]
    host: str

    @property
    def environ(self) -> dict[str, str]:
        return environment(self.folder, AWS_SHARED_CREDENTIALS_FILE=str(self.data / "store" / "recovery-credentials"))

    @property
    def source(self) -> Path:
        return self.folder / "to back up"

    @property
    def api(self) -> str:
        return str(json.loads((self.data / "coordinator" / "api.json").read_text())["url"])

    def operator(self, *arguments: object) -> Done:
        return run(operator(*arguments, "--data", self.data, "--json"), self.environ)

    def backup(self) -> list[str]:
        return operator(
            "backup", self.host, "--path", self.source, "--no-system-state", "--wait", "--data", self.data, "--json"
        )

    def process(self, name: str) -> Process | None:
        """The process of this part that runs now."""
        return next((each for each in left_of(self.data) if WORDS[name] in each.argv), None)

    def objects(self) -> dict[str, int]:
        """Everything in the bucket, with sizes; nothing while the store is away."""
        with suppress(Exception), bucket_client(self) as s3:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket_of(self))
            return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}
        return {}

    def packs(self) -> dict[str, int]:
        return {key: size for key, size in self.objects().items() if key.startswith("packs/")}

    def recover(self, point: str, to: Path) -> Done:
        """With bucket and passphrase alone."""
        words = (
            "recover",
            "--vault",
            self.vault["url"],
            "--point",
            point,
            "--passphrase-file",
            self.data / "passphrase",
        )
        return run(worker(*words, "--to", to, "--json"), self.environ)


def bucket_of(system: System) -> str:
    found = re.match(r"s3://([^?/]+)", system.vault["url"])
    assert found
    return found[1]


class bucket_client:  # noqa: N801  a context, named like a function
    """The bucket as whoever recovers sees it."""

    def __init__(self, system: System) -> None:
        found = re.search(r"endpoint=(http://[0-9.:]+)", system.vault["url"])
        assert found
        lines = (system.data / "store" / "recovery-credentials").read_text().splitlines()
        key, secret = (line.partition(" = ")[2] for line in lines if " = " in line)
        self._client = boto3.session.Session().client(
            "s3",
            endpoint_url=found[1],
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2),
        )

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("kills")
    data = folder / "a data folder"
    (folder / "to back up").mkdir()
    (folder / "home").mkdir()
    with started(operator("up", "--data", data, "--json"), environment(folder / "home"), folder / "up") as program:
        program.says("Ctrl-C ends everything", within_s=120)
        hosts = run(operator("host", "list", "--data", data, "--json"), environment(folder)).fine()["items"]
        yield System(folder=folder, data=data, program=program, vault=json.loads(program.printed), host=hosts[0]["id"])
        assert program.process.poll() is None, program.said
        program.signal(signal.SIGINT)
        assert program.end().code == 0
    assert until(lambda: not left_of(data)), left_of(data)


def secrets_of(data: Path) -> dict[str, str]:
    """Everything of a data folder that nobody else may learn, by where it lies."""
    identity = json.loads((data / "worker" / "identity.json").read_text())
    found = {
        "passphrase": (data / "passphrase").read_text().strip(),
        "admin token": (data / "coordinator" / "admin-token").read_text().strip(),
        "host's queue password": identity["queue"]["password"],
        "host's signing key": identity["signing_key"],
    }
    for kept in (data / "store" / "secrets.json", data / "valkey" / "secrets.json"):
        found |= {
            f"{kept.parent.name}: {name}": value
            for name, value in json.loads(kept.read_text()).items()
            if not name.endswith("_key") or name == "signing_key"
        }
    for key in (data / "coordinator" / "keys").rglob("*"):
        if key.is_file():
            found[f"coordinator: {key.name}"] = key.read_text().strip()
    assert len(found) > 10
    assert all(len(value) >= 16 for value in found.values()), found.keys()
    return found


def shown_in_arguments(system: System) -> list[str]:
    """Secrets that every user of this machine could read with `ps` now."""
    argv = [each.argv for each in left_of(system.data)]
    assert len(argv) >= 6
    return [name for name, secret in secrets_of(system.data).items() if any(secret in each for each in argv)]


def test_no_byte_of_the_bucket_shows_what_was_backed_up(system: System, tmp_path: Path) -> None:
    """Nor what it is called. Text that compresses well, and some that does not; before the kills fill the bucket."""
    random = os.urandom(300_000)
    (system.source / f"{MARKER}-name").write_text(f"{MARKER}-text\n" * 5000)
    (system.source / "random").write_bytes(random)
    done = run(system.backup(), system.environ)
    assert done.code == 0, done.err
    point = json.loads(done.out.splitlines()[-1])["point"]
    assert system.recover(point, tmp_path / "out").fine()["failed"] == []
    assert content_of(below(tmp_path / "out", system.source)) == content_of(system.source)

    plain = [MARKER.encode(), b"to back up", random[:32], random[150_000:150_032], random[-32:]]
    plain += [secret.encode() for secret in secrets_of(system.data).values()]
    objects = system.objects()
    assert {key.partition("/")[0] for key in objects} >= {"packs", "points", "lists", "keys", "hosts", "vault.json"}
    with bucket_client(system) as s3:
        for key in objects:
            content = s3.get_object(Bucket=bucket_of(system), Key=key)["Body"].read()
            for text in plain:
                assert text not in content, (key, text)
                assert text not in key.encode()
    for file in system.source.iterdir():
        file.unlink()


def test_a_host_reaches_its_own_list_alone(system: System) -> None:
    queue = json.loads((system.data / "worker" / "identity.json").read_text())["queue"]
    others = "host.00000000-0000-4000-8000-000000000000"
    with redis.Redis.from_url(queue["url"], username=queue["user"], password=queue["password"]) as host:
        assert host.ping()
        for refused in (
            lambda: host.brpop([others], timeout=1),
            lambda: host.brpop([queue["user"], others], timeout=1),
            lambda: host.lpush(others, "a job"),
            lambda: host.lpush(queue["user"], "a job"),
            lambda: host.llen(others),
            lambda: host.keys("*"),
            host.acl_list,
            lambda: host.eval("return 1", 0),
            lambda: host.config_get("requirepass"),
            host.flushall,
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()
    with redis.Redis.from_url(queue["url"]) as nobody, pytest.raises(redis.exceptions.AuthenticationError):
        nobody.ping()


def test_the_api_wants_a_token(system: System) -> None:
    with httpx.Client(base_url=system.api, trust_env=False) as client:
        token = (system.data / "coordinator" / "admin-token").read_text().strip()
        for path in ("/v1/jobs", "/v1/hosts", "/v1/vaults", "/v1/points", f"/v1/hosts/{system.host}"):
            for headers in ({}, {"Authorization": "Bearer none"}, {"Authorization": f"Bearer {token[:-1]}"}):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401, (path, headers, answer.text)
                assert system.host not in answer.text
            assert client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert client.post("/v1/jobs", json={"host": system.host}).status_code == 401
        assert client.get("/v1/health").json()["status"] == "ok"
    done = run(operator("host", "list", "--api", system.api, "--token", "wrong", "--json"), system.environ)
    done.refused(7, "not_authenticated")


def test_the_metrics_are_there(system: System) -> None:
    with httpx.Client(base_url=system.api, trust_env=False) as client:
        own = client.get("/metrics")
        fleet = client.get("/metrics/fleet")
    assert (own.status_code, fleet.status_code) == (200, 200)
    for name in ("build_info{", "checkin_events_total", "queue_delay_seconds_bucket", "job_stage_seconds_bucket{"):
        assert f"\nstateward_{name}" in own.text, own.text
    found = re.findall(r"\nstateward_host_last_point_timestamp_seconds\{(.*?)\} (\S+)", fleet.text)
    assert len(found) == 1, fleet.text
    assert 'vault="local"' in found[0][0]
    assert 0 <= time.time() - float(found[0][1]) < 3600
    assert float(re.findall(r"\nstateward_vault_points\{.*?\} (\S+)", fleet.text)[0]) >= 1


def fill(folder: Path) -> None:
    """Data that nobody has backed up before."""
    for number in range(5):
        with (folder / f"data-{number}").open("wb") as file:
            for _ in range(SIZE // 5 // MIB):
                file.write(os.urandom(MIB))


@pytest.mark.parametrize("victims", ["coordinator", "store", "job", "agent, valkey"])
def test_a_backup_outlives_the_kill_of(system: System, victims: str, tmp_path: Path) -> None:
    fill(system.source)
    before = system.packs()
    with started(system.backup(), system.environ, tmp_path / "backup") as backup:
        until(lambda: len(system.packs().keys() - before.keys()) > SENT_AGAIN, every_s=0.02)
        killed = {name: system.process(name) for name in victims.split(", ")}
        assert shown_in_arguments(system) == []
        for name, process in killed.items():
            assert process is not None, f"the {name} has ended before the middle"
            os.kill(process.pid, signal.SIGKILL)
        done = backup.end(120)
    last = json.loads(done.out.splitlines()[-1])
    assert (done.code, last["state"]) == (0, "completed"), (done.out[-2000:], done.err)

    stored = {key: size for key, size in system.packs().items() if key not in before}
    assert sum(stored.values()) < SIZE + SENT_AGAIN * PACK, "what was stored was sent again"

    for name in killed.keys() - {"job"}:
        until(lambda name=name: system.process(name))
    recovered = system.recover(last["point"], tmp_path / "out").fine()
    assert recovered["failed"] == []
    assert content_of(below(tmp_path / "out", system.source)) == content_of(system.source)


def test_no_log_holds_a_secret(system: System) -> None:
    """After all of the above, kills and their restarts included; and nothing broke that nobody saw."""
    logs = [file for file in (system.data / "logs").iterdir() if file.is_file()]
    assert {file.stem for file in logs} >= {"coordinator", "seaweedfs", "valkey", "worker"}
    texts = {file.name: file.read_text(errors="replace") for file in logs} | {
        "what up said": system.program.said,
        "what up printed": system.program.printed,
    }
    assert all(texts.values())
    for where, text in texts.items():
        assert [name for name, secret in secrets_of(system.data).items() if secret in text] == [], where
        assert "Traceback" not in text, where
