"""`stateward-worker register`, `run`, `status` and `passphrase` as programs, against the whole real coordinator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator_fixtures import Coordinator, clock, coordinator, eventually, job_in, vault

from common.contracts.jobs import BackupSpec, CheckSpec, RestoreSpec
from common.contracts.operator import CredentialsCreate, JobCreate, VaultView
from common.jobstates import JobState
from common.secret import Secret
from coordinator.cli.granting import Wanted, grant_for

__all__ = ["clock", "coordinator", "vault"]

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).resolve().parents[2]
PASSPHRASE = "correct horse battery staple"
ENDED = (JobState.COMPLETED, JobState.COMPLETED_WITH_WARNINGS, JobState.FAILED, JobState.CANCELLED)


class Machine:
    """A machine with `stateward-worker` on it, and a folder worth backing up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.source = folder / "source"
        self.source.mkdir(parents=True)
        (self.source / "small").write_bytes(b"small\n")
        (self.source / "large").write_bytes(os.urandom(40_000_000))
        self.passphrase_file = folder / "passphrase"
        self.passphrase_file.write_text(PASSPHRASE + "\n")
        self.credentials = folder / "vault.credentials"
        self.agent: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "worker", *arguments, "--state", str(self.state)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def save_credentials(self, token: str) -> None:
        self.credentials.write_text(json.dumps({"stateward": "vault credentials", "token": token}))

    def register(self, *more: str) -> subprocess.CompletedProcess[str]:
        files = ("--credentials", str(self.credentials), "--passphrase-file", str(self.passphrase_file))
        return self.run("register", *files, *more)

    def start(self) -> None:
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                self.command("run"), cwd=ROOT, stderr=log, env={**os.environ, "STATEWARD_START_SPREAD_S": "0"}
            )

    def stop(self) -> None:
        if self.agent and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)
            assert self.agent.wait(20) == 0


@pytest.fixture
def machine(tmp_path: Path, coordinator: Coordinator, vault: VaultView) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine")
    machine.save_credentials(coordinator.api.create_credentials(vault.name, CredentialsCreate()).token)
    yield machine
    machine.stop()


@pytest.fixture
def registered(machine: Machine) -> str:
    """The host's id; active, its agent running."""
    done = machine.register("--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == "incomplete"
    assert machine.json("passphrase", "confirm", told["fingerprint"])["state"] == "active"
    machine.start()
    return str(told["host"])


def ask(coordinator: Coordinator, host: str, spec: Any) -> str:
    return coordinator.api.create_job(JobCreate(host=host, spec=spec)).id


def test_a_host_registers_backs_up_twice_and_restores_by_grant(
    coordinator: Coordinator, machine: Machine, registered: str
) -> None:
    assert not machine.credentials.exists()
    assert {path.name for path in machine.state.iterdir()} >= {"identity.json", "vaults"}
    spec = BackupSpec(system_state=False, paths=(str(machine.source),))
    first = job_in(coordinator, ask(coordinator, registered, spec), *ENDED)
    assert first.state is JobState.COMPLETED, (first.code, first.reason)
    assert first.report is not None
    assert first.report.files == 2
    assert first.report.new_bytes > 40_000_000
    second = job_in(coordinator, ask(coordinator, registered, spec), *ENDED)
    assert second.state is JobState.COMPLETED, (second.code, second.reason)
    assert second.report is not None
    assert second.report.new_bytes < 1_000_000

    assert second.point is not None
    restore = RestoreSpec(point=second.point, source_host=registered)
    job_id = ask(coordinator, registered, restore)
    view = eventually(lambda: (found := coordinator.api.grant(job_id)).public_key and found)
    wanted = Wanted(job_id=job_id, target_host=registered, spec=restore)
    coordinator.api.send_grant(job_id, grant_for(view, wanted, Secret(PASSPHRASE)))
    done = job_in(coordinator, job_id, *ENDED)
    assert done.state in {JobState.COMPLETED, JobState.COMPLETED_WITH_WARNINGS}, (done.code, done.reason)
    assert done.report is not None
    copies = {path.name: path.read_bytes() for path in Path(done.report.destination).rglob("*") if path.is_file()}
    assert copies == {path.name: path.read_bytes() for path in machine.source.iterdir()}

    status = machine.json("status")
    assert status["agent_running"]
    assert status["queue"] == "reachable"
    assert status["last_job"]["id"] == job_id
    assert status["unsent_results"] == 0


def test_a_check_runs_and_a_cancelled_restore_ends(coordinator: Coordinator, machine: Machine, registered: str) -> None:
    check = job_in(coordinator, ask(coordinator, registered, CheckSpec(system_state=False)), *ENDED)
    assert check.state in {JobState.COMPLETED, JobState.COMPLETED_WITH_WARNINGS, JobState.FAILED}
    assert check.report is not None
    assert check.report.checks


def test_the_agent_killed_in_the_middle_resumes_and_ends_well(
    coordinator: Coordinator, machine: Machine, registered: str
) -> None:
    for number in range(6):
        (machine.source / f"more-{number}").write_bytes(os.urandom(50_000_000))
    job_id = ask(coordinator, registered, BackupSpec(system_state=False, paths=(str(machine.source),)))
    eventually(lambda: (job := coordinator.api.job(job_id)).progress and job.progress.bytes_done > 0)
    assert machine.agent
    machine.agent.kill()
    machine.agent.wait()
    machine.start()
    job = eventually(lambda: (found := coordinator.api.job(job_id)).state in ENDED and found, within_s=60)
    assert job.state is JobState.COMPLETED, (job.code, job.reason)
    assert job.attempt == 1


def test_credentials_are_refused_with_the_reason_that_applies(
    coordinator: Coordinator, vault: VaultView, machine: Machine
) -> None:
    whole = machine.credentials.read_text()
    token = json.loads(whole)["token"]
    head, body, signature = token.split(".")
    machine.save_credentials(f"{head}.{body[:-8]}AAAAAAAA.{signature}")
    done = machine.register("--json")
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (7, "credentials_altered")

    made = CredentialsCreate(host_pattern="no-such-host-*")
    machine.save_credentials(coordinator.api.create_credentials(vault.name, made).token)
    done = machine.register("--json")
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (7, "credentials_foreign")

    coordinator.clock.ahead -= coordinator.clock.ahead.resolution * 10**6 * 3600
    machine.save_credentials(coordinator.api.create_credentials(vault.name, CredentialsCreate(valid_s=60)).token)
    coordinator.clock.ahead *= 0
    done = machine.register("--json")
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (7, "credentials_expired")
    assert not (machine.state / "enrolment.json").exists()

    machine.credentials.write_text(whole)
    assert machine.register().returncode == 0
    machine.credentials.write_text(whole)
    assert machine.register().returncode == 0, "the same credentials again are the same registration"
    assert not machine.credentials.exists()

    other = Machine(machine.folder / "other")
    other.credentials.write_text(whole)
    done = other.register("--json")
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (7, "credentials_used_up")


def test_an_incomplete_host_is_told_how_to_confirm_and_a_wrong_fingerprint_is_refused(machine: Machine) -> None:
    done = machine.register()
    assert done.returncode == 0, done.stderr
    assert "passphrase confirm" in done.stdout
    wrong = machine.run("passphrase", "confirm", "0000-0000", "--json")
    assert (wrong.returncode, json.loads(wrong.stderr)["error"]["code"]) == (7, "refused")
    status = machine.json("status")
    assert (status["state"], status["agent_running"]) == ("incomplete", False)
    again = machine.register("--key-saved", status["fingerprint"], "--json")
    assert json.loads(again.stdout)["state"] == "active"
    assert PASSPHRASE not in "".join(
        path.read_text(errors="ignore") for path in machine.state.rglob("*") if path.is_file()
    )


def test_a_host_that_is_not_registered_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    done = machine.run("run")
    assert done.returncode == 2
    assert "not registered" in done.stderr
    assert machine.json("status")["registered"] is False


def test_a_generated_passphrase_is_fit_and_kept_private(tmp_path: Path) -> None:
    target = tmp_path / "passphrase"
    command = [sys.executable, "-m", "worker", "passphrase", "generate", "--to", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert len(target.read_text().strip()) == 35
    assert target.stat().st_mode & 0o777 == 0o600
