"""`stateward serve` as a process of its own, and the commands against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from coordinator_fixtures import Clock, Host, eventually, settings_for
from test_coordinator_jobs import commit

from common.contracts.jobs import JobReport, RestoreKey, Stage
from common.jobstates import JobState
from common.signing import b64
from common.vault.grant import new_restore_key, sign_restore_key
from coordinator.__main__ import run
from coordinator.embedded import QueueAccess, StoreAccess

pytestmark = pytest.mark.timeout(120)


@dataclass
class Program:
    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return str(json.loads((self.data / "coordinator" / "api.json").read_text())["url"])


def toml_of(valkey: QueueAccess, seaweedfs: StoreAccess, data: Path) -> str:
    settings = settings_for(data, valkey, seaweedfs)
    storage = {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in settings.storage
    }
    queue = {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in settings.queue
    }
    parts = ["listen_port = 0", "janitor_s = 0.2"]
    for title, table in (("storage", storage), ("queue", queue)):
        parts += [f"[{title}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return "\n".join(parts)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, valkey: QueueAccess, seaweedfs: StoreAccess) -> Iterator[Program]:
    data = tmp_path_factory.mktemp("program")
    folder = data / "coordinator"
    folder.mkdir(mode=0o700)
    (folder / "stateward.toml").write_text(toml_of(valkey, seaweedfs, data))
    log = data / "log"
    arguments = [sys.executable, "-m", "coordinator", "serve", "--data", str(data), "--json"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            arguments, stderr=errors, stdout=errors, env={**os.environ, "PYTHONWARNINGS": "default"}
        )
        try:
            eventually(lambda: (folder / "api.json").exists() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield Program(data, process, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            assert lines[-1]["event"] == "stopped"
            assert all("exception" not in line for line in lines)
        finally:
            process.kill()
            process.wait()


def stateward(program: Program, capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the command says on stdout."""
    ended = run(["--data", str(program.data), *arguments])
    told = capfd.readouterr()
    assert ended == code, told.err
    return told.out


def test_the_commands_from_a_vault_to_a_restore(
    program: Program, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = json.loads(stateward(program, capfd, "vault", "create", "Main", "--json"))
    assert made["state"] == "ready"
    assert stateward(program, capfd, "vault", "list", "--quiet").strip() == made["id"]
    assert "Main" in stateward(program, capfd, "vault", "show", "Main")
    file = tmp_path / "credentials"
    stateward(program, capfd, "vault", "credentials", "Main", "--out", str(file), "--label", "role=db")
    assert file.stat().st_mode & 0o777 == 0o600
    stateward(program, capfd, "backup", "nobody", code=2)

    host = Host(program.url, Clock())
    token = json.loads(file.read_text())["token"]
    host.enrol(token)
    stateward(program, capfd, "backup", host.name, code=7)
    host.send_keys()
    assert json.loads(stateward(program, capfd, "host", "show", host.name, "--json"))["labels"] == {"role": "db"}

    agent = threading.Thread(target=do_backup, args=(host,))
    agent.start()
    lines = stateward(program, capfd, "backup", host.name, "--wait", "--json").splitlines()
    agent.join()
    states = [json.loads(line)["state"] for line in lines]
    assert states[-1] == "completed"
    assert "running" in states
    (point,) = json.loads(stateward(program, capfd, "point", "list", "--host", host.name, "--json"))["items"]
    assert host.name in stateward(program, capfd, "point", "show", point["point"])

    passphrase = tmp_path / "passphrase"
    passphrase.write_text("the wrong one, but long enough\n")
    arguments = ("restore", point["point"], "--host", host.name, "--passphrase-file", str(passphrase), "--wait")
    agent = threading.Thread(target=do_restore, args=(host, False))
    agent.start()
    stateward(program, capfd, *arguments, code=7)
    agent.join()
    passphrase.write_text(host.passphrase.reveal() + "\n")
    agent = threading.Thread(target=do_restore, args=(host, True))
    agent.start()
    assert "completed_with_warnings" in stateward(program, capfd, *arguments, code=3)
    agent.join()
    listed = json.loads(stateward(program, capfd, "job", "list", "--json"))["items"]
    assert [job["state"] for job in listed] == ["completed_with_warnings", "cancelled", "completed"]
    assert stateward(program, capfd, "job", "show", listed[0]["id"], "--quiet").strip() == listed[0]["id"]
    stateward(program, capfd, "job", "cancel", listed[0]["id"], code=7)
    stateward(program, capfd, "job", "watch", listed[1]["id"], code=9)
    assert "removed" in stateward(program, capfd, "host", "remove", host.name)
    log = program.log.read_text()
    for secret in (host.passphrase.reveal(), host.enrolled.queue.password if host.enrolled else "", token):
        assert secret.strip() not in log


def do_backup(host: Host) -> None:
    message = host.pop(20)
    assert message is not None
    lease = host.lease(host.job_of(message), message)
    for _ in range(3):
        host.renew(lease)
        threading.Event().wait(0.5)
    commit(host, lease)
    host.check_in(host.event(lease, JobState.COMMITTED))


def do_restore(host: Host, granted: bool) -> None:
    message = host.pop(20)
    assert message is not None
    lease = host.lease(host.job_of(message), message)
    _, public = new_restore_key()
    key = RestoreKey(
        public_key=b64(public), signature=b64(sign_restore_key(public, job_id=lease.job_id, signer=host.key))
    )
    answer = eventually(
        lambda: (
            given if (given := host.renew(lease, Stage.AWAITING_GRANT, restore_key=key)).grant or given.cancel else None
        )
    )
    assert bool(answer.grant) is granted
    state = JobState.COMPLETED_WITH_WARNINGS if granted else JobState.CANCELLED
    host.check_in(host.event(lease, state, report=JobReport(destination="/tmp/x", warnings_count=1)))
