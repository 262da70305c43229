"""`stateward quickstart`: interrupted at every stage, killed, and run to its end twice; and what its vault alone gives.

One data folder, in the order of the tests: each run is also the next one after an interruption.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from e2e_programs import ROOT, Done, content_of, environment, left_of, operator, run, started, until, worker

from coordinator.embedded import DataFolder, StoreAccess, Supervisor, start_seaweedfs

pytestmark = pytest.mark.timeout(280)
FIELDS = {
    "ok": bool,
    "vault": str,
    "host": str,
    "job": str,
    "point": str,
    "state": str,
    "files": int,
    "logical_bytes": int,
    "new_bytes": int,
    "stored_bytes": int,
    "warnings": int,
    "backup_seconds": float,
    "restore_seconds": float,
    "compared_files": int,
    "differences": list,
    "vault_url": str,
    "passphrase_file": str,
    "api_url": str,
    "metrics_url": str,
    "data": str,
}
DONE = 0 if ROOT else 3
"""An ordinary user may not read all of the system state: warnings."""


@dataclass(kw_only=True)
class Place:
    """A data folder, and what the runs to the end on it said."""

    folder: Path
    runs: list[Done] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data, of a person"

    @property
    def environ(self) -> dict[str, str]:
        return environment(self.folder)

    def quickstart(self, *arguments: object) -> list[str]:
        return operator("quickstart", "--once", "--data", self.data, *arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(folder=tmp_path_factory.mktemp("quickstart"))


def test_help_starts_nothing(place: Place) -> None:
    done = run(place.quickstart("--help"), place.environ)
    assert done.code == 0, done.err
    assert "--once" in done.out
    assert not place.data.exists()


def test_a_port_in_use_is_named_before_anything_starts(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--api-port", "--store-port", "--queue-port"):
            done = run(place.quickstart("--json", option, port), place.environ)
            done.refused(2, "port_in_use", f"Port {port}")
        assert not place.data.exists()


def test_ctrl_c_while_the_program_still_loads_is_answered_in_words(place: Place, tmp_path: Path) -> None:
    with started(place.quickstart(), place.environ, tmp_path / "run") as program:
        until(lambda: "cryptography" in Path(f"/proc/{program.pid}/maps").read_text(), every_s=0.01)
        program.signal(signal.SIGINT)
        done = program.end(60)
    assert done.code == 9, (done.code, done.err)
    assert "Traceback" not in done.err
    assert left_of(place.data) == []


@pytest.mark.rig
@pytest.mark.parametrize(
    "moment",
    [
        "Starting Valkey",
        "Enrolling this machine",
        "uploading",
    ],
)
def test_ctrl_c_ends_everything_and_the_next_run_works(place: Place, moment: str, tmp_path: Path) -> None:
    """Each moment is reached by the run after the one that was interrupted, and after the last by two whole ones."""
    with started(place.quickstart(), place.environ, tmp_path / "run") as program:
        program.says(moment)
        program.signal(signal.SIGINT)
        done = program.end(60)
    assert done.code == 9, (done.code, done.err)
    assert "cancelled" in done.err
    assert "Traceback" not in done.err
    assert left_of(place.data) == []


@pytest.mark.rig
def test_a_kill_of_the_parent_leaves_nothing_and_a_second_run_is_told_that_it_is_busy(
    place: Place, tmp_path: Path
) -> None:
    with started(place.quickstart(), place.environ, tmp_path / "run") as program:
        program.says("Starting the coordinator")
        run(place.quickstart("--json"), place.environ).refused(10, "busy", "in use by another run", str(program.pid))
        program.says("Restoring it")
        assert len(left_of(place.data)) >= 6
        program.signal(signal.SIGKILL)
        program.end()
    until(lambda: not left_of(place.data), within_s=20)


@pytest.mark.rig
def test_the_store_keeps_its_address_or_says_who_has_it(place: Place) -> None:
    """Vaults and hosts keep the address: on another port nobody would ever find the store again."""
    kept = json.loads((place.data / "run" / "seaweedfs.json").read_text())
    port = kept["ports"][-1]
    with socket.create_server(("127.0.0.1", port)):
        done = run(place.quickstart("--json"), place.environ)
    done.refused(2, "port_in_use", f"Port {port}", "the store since its first run")
    assert left_of(place.data) == []
    assert json.loads((place.data / "run" / "seaweedfs.json").read_text()) == kept


@pytest.mark.parametrize("number", [1, 2])
def test_a_whole_run_tells_exactly_what_is_agreed(place: Place, number: int) -> None:
    done = run(place.quickstart("--json"), place.environ, timeout_s=240)
    assert done.code == DONE, (done.code, done.err)
    assert left_of(place.data) == []
    outcome = done.document
    assert {name: type(value) for name, value in outcome.items()} == FIELDS
    assert outcome["ok"] is True
    assert outcome["differences"] == []
    assert outcome["state"] == ("completed" if ROOT else "completed_with_warnings")
    assert (outcome["warnings"] == 0) is ROOT
    assert outcome["compared_files"] >= outcome["files"] > 100
    assert outcome["data"] == str(place.data)
    assert outcome["metrics_url"].startswith(outcome["api_url"])
    passphrase = Path(outcome["passphrase_file"])
    assert passphrase.stat().st_mode & 0o777 == 0o600
    assert place.data.stat().st_mode & 0o777 == 0o700
    assert passphrase.read_text().strip() not in done.out + done.err
    place.runs.append(done)
    assert len(place.runs) == number


def test_the_second_run_is_incremental(place: Place) -> None:
    first, second = (each.document for each in place.runs)
    assert (second["vault"], second["host"], second["vault_url"]) == (first["vault"], first["host"], first["vault_url"])
    assert second["point"] > first["point"]
    assert second["job"] != first["job"]
    assert second["new_bytes"] < second["logical_bytes"] / 20
    assert second["stored_bytes"] < 1 << 20


# ── the store alone ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Another machine: it has the bucket's address, credentials that read, and the passphrase; nothing else."""

    environ: dict[str, str]
    url: str
    passphrase: Path
    access: StoreAccess

    def run(self, command: str, *arguments: object, url: str | None = None, **more: str) -> Done:
        return run(worker(command, "--vault", url or self.url, "--json", *arguments), {**self.environ, **more})


@pytest.fixture(scope="module")
def elsewhere(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """SeaweedFS on the same data folder, started as the system starts it; no coordinator, queue or agent."""
    home = tmp_path_factory.mktemp("elsewhere")
    passphrase = home / "passphrase"
    passphrase.write_text((place.data / "passphrase").read_text())
    credentials = home / "credentials"
    credentials.write_text((place.data / "store" / "recovery-credentials").read_text())
    environ = environment(home, STATEWARD_STATE=str(home / "state"), AWS_SHARED_CREDENTIALS_FILE=str(credentials))
    with DataFolder(place.data) as folder, Supervisor(folder.layout.run) as supervisor:
        access = start_seaweedfs(supervisor, folder.layout)
        yield Elsewhere(environ=environ, url=place.runs[-1].document["vault_url"], passphrase=passphrase, access=access)


def test_a_machine_that_never_knew_the_host_recovers_it_from_the_store_alone(
    place: Place, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    words = ("--passphrase-file", elsewhere.passphrase, "--to", tmp_path / "out")
    outcome = place.runs[-1].document
    done = elsewhere.run("recover", *words)
    assert done.fine()["point"] == outcome["point"]
    assert done.document["failed"] == []
    job = re.compile(r"[0-9a-f-]{36}")
    restores = [each for each in (place.data / "worker" / "restores").iterdir() if job.fullmatch(each.name)]
    newest = max(restores, key=lambda each: each.stat().st_ctime_ns)
    recovered = content_of(tmp_path / "out")
    assert recovered == content_of(newest), "recover and the restore job gave different files"
    assert recovered["etc/passwd"] == Path("/etc/passwd").read_bytes()


def test_the_passphrase_wrong_by_one_byte_recovers_nothing(elsewhere: Elsewhere, tmp_path: Path) -> None:
    right = elsewhere.passphrase.read_text()
    wrong = tmp_path / "wrong"
    wrong.write_text(("b" if right[0] == "a" else "a") + right[1:])
    done = elsewhere.run("recover", "--passphrase-file", wrong, "--to", tmp_path / "out")
    done.refused(7, "wrong_passphrase", "does not open key")
    assert not (tmp_path / "out").exists()


def test_recovery_credentials_read_and_nothing_more(place: Place, elsewhere: Elsewhere, tmp_path: Path) -> None:
    words = ("--passphrase-file", elsewhere.passphrase, "--state", tmp_path / "state")
    elsewhere.run("init", *words).refused(7, "store_denied", "refused")
    assert [row["point"] for row in elsewhere.run("points").fine()["points"]][-2:] == [
        each.document["point"] for each in place.runs
    ]


def test_a_bucket_that_is_not_there_is_named(elsewhere: Elsewhere) -> None:
    url = f"s3://no-such-bucket?endpoint={elsewhere.access.endpoint}"
    done = elsewhere.run("points", url=url)
    done.refused(2, "bucket_missing", "no-such-bucket", elsewhere.access.endpoint)


def test_wrong_and_missing_credentials_are_refused(elsewhere: Elsewhere) -> None:
    key, secret = elsewhere.access.recovery_key, elsewhere.access.recovery_secret.reveal()
    for wrong_key, wrong_secret in ((key, secret[:-1] + "x"), ("NOBODY", secret)):
        more = {"AWS_ACCESS_KEY_ID": wrong_key, "AWS_SECRET_ACCESS_KEY": wrong_secret}
        done = elsewhere.run("points", **more)
        done.refused(7, "store_denied", "refused")
        assert secret[:-1] not in done.err
    none = {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
    elsewhere.run("points", **none).refused(7, "store_denied", "No credentials")


def test_tls_asked_of_a_store_without_it_is_said(elsewhere: Elsewhere) -> None:
    url = elsewhere.url.replace("http://", "https://")
    done = elsewhere.run("points", url=url)
    done.refused(6, "tls_expected", "TLS")
    assert "http://" in done.error["next_step"]


def test_no_plain_text_lies_in_the_volumes_of_the_store(place: Place) -> None:
    """What system state surely holds, searched for in every byte on the disk."""
    plain = [Path("/etc/passwd").read_bytes()[:40], b"root:x:0:0:", b"etc/passwd", b"nsswitch.conf"]
    files = [file for file in (place.data / "store" / "volumes").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) > 1 << 20
    for file in files:
        content = file.read_bytes()
        for text in plain:
            assert text not in content, (file.name, text)


def test_no_log_holds_a_secret(place: Place) -> None:
    kept = json.loads((place.data / "store" / "secrets.json").read_text())
    secrets = [value for name, value in kept.items() if not name.endswith("_key") or name == "signing_key"]
    secrets += json.loads((place.data / "valkey" / "secrets.json").read_text()).values()
    secrets += [(place.data / name).read_text().strip() for name in ("passphrase", "coordinator/admin-token")]
    identity = json.loads((place.data / "worker" / "identity.json").read_text())
    secrets += [identity["signing_key"], identity["queue"]["password"]]
    for log in (place.data / "logs").iterdir():
        text = log.read_text(errors="replace")
        assert [secret[:4] for secret in secrets if secret in text] == [], log.name
        assert log.stat().st_mode & 0o777 == 0o600, log.name
