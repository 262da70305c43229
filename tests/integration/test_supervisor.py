"""Nothing is left behind, nothing acknowledged is lost, and what dies comes back: on real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from common.errors import Busy, ConfigInvalid, NoSpace, PortInUse, ServiceFailed
from coordinator.embedded import (
    DataFolder,
    Service,
    ServiceState,
    Supervisor,
    create_bucket,
    start_seaweedfs,
    start_valkey,
)
from coordinator.embedded.guardian import marked
from coordinator.embedded.ports import all_free, find_free, is_free
from coordinator.embedded.processes import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

# A service with a child in a session of its own, which neither a signal to the group nor the death of a parent reaches.
WITH_GRANDCHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
time.sleep(600)
"""
PARENT = """
import sys, time
from pathlib import Path
from coordinator.embedded import DataFolder, Service, Supervisor, start_valkey
with DataFolder(Path(sys.argv[1])) as folder, Supervisor(folder.layout.run) as supervisor:
    start_valkey(supervisor, folder.layout)
    supervisor.start(Service(name="family", argv=(sys.executable, "-c", sys.argv[2]),
                             log=folder.layout.logs / "family.log", ready=lambda: True))
    time.sleep(0.5)
    print("up", flush=True)
    time.sleep(600)
"""


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def sleeper(folder: DataFolder, program: str = "import time; time.sleep(600)", name: str = "sleeper") -> Service:
    return Service(
        name=name, argv=(sys.executable, "-c", program), log=folder.layout.logs / "sleeper.log", ready=lambda: True
    )


def valkey_of(parent: int) -> psutil.Process:
    (found,) = [p for p in psutil.Process(parent).children() if p.name().startswith("valkey")]
    return found


def mark_of(folder: Path) -> str:
    return (folder / "run" / "mark").read_text().strip()


def test_kill_9_of_the_parent_leaves_no_process(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with subprocess.Popen(
        (sys.executable, "-c", PARENT, str(data), WITH_GRANDCHILD), stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        mark, valkey = mark_of(data), valkey_of(parent.pid)
        try:
            until(lambda: len(marked(mark)) == 2, 10)  # the service and its child: Valkey overwrites its environment
        finally:
            parent.kill()
    until(lambda: not marked(mark) and not valkey.is_running(), 10)
    guardians = [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or ())]
    psutil.wait_procs(guardians, timeout=10)
    assert not any(p.is_running() for p in guardians)


def test_kill_9_of_the_guardian_and_the_parent_leaves_no_service(tmp_path: Path) -> None:
    """The kernel ends the direct children, and the next run of the folder whatever is left."""
    data = tmp_path / "data"
    with subprocess.Popen(
        (sys.executable, "-c", PARENT, str(data), WITH_GRANDCHILD), stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        mark = mark_of(data)
        os.kill(parent.pid, signal.SIGSTOP)  # else it starts another guardian
        for process in psutil.process_iter(["cmdline"]):
            if mark in (process.info["cmdline"] or ()):
                process.kill()
        parent.kill()
    until(lambda: len(marked(mark)) <= 1, 10)
    with DataFolder(data) as folder, Supervisor(folder.layout.run):
        assert marked(mark) == []


def test_leaving_the_context_ends_the_grandchildren_too(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder:
        with Supervisor(folder.layout.run) as supervisor:
            supervisor.start(sleeper(folder, WITH_GRANDCHILD))
            mark = mark_of(folder.layout.root)
            until(lambda: len(marked(mark)) == 2)
        assert marked(mark) == []


def test_services_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    """The kernel takes a thread for the parent; were it the caller's, the service would die with that thread."""
    with DataFolder(tmp_path / "data") as folder, Supervisor(folder.layout.run) as supervisor:
        thread = threading.Thread(target=supervisor.start, args=(sleeper(folder),))
        thread.start()
        thread.join()
        time.sleep(0.5)
        (status,) = supervisor.status()
        assert status.restarts == 0
        assert status.pid is not None
        assert psutil.pid_exists(status.pid)


def test_a_killed_valkey_returns_on_the_same_port(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder, Supervisor(folder.layout.run) as supervisor:
        access = start_valkey(supervisor, folder.layout)
        (before,) = supervisor.status()
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: supervisor.status()[0].restarts == 1 and supervisor.status()[0].state is ServiceState.READY)
        assert not is_free(access.port)
        assert supervisor.status()[0].pid != before.pid


def test_a_killed_seaweedfs_returns_with_all_it_acknowledged(tmp_path: Path) -> None:
    """Killed while two threads write: every object whose PUT was answered is there, on the same port, byte for byte."""
    with DataFolder(tmp_path / "data") as folder:
        with Supervisor(folder.layout.run) as supervisor:
            access = start_seaweedfs(supervisor, folder.layout)
            create_bucket(access, "vault")
            acknowledged: dict[str, bytes] = {}
            over = threading.Event()

            def write(name: str) -> None:
                with closing(access.janitor()) as s3:
                    for number in range(10_000):
                        body = f"{name}{number}".encode() * 5_000
                        try:
                            s3.put_object(Bucket="vault", Key=f"{name}/{number}", Body=body)
                        except (BotoCoreError, ClientError):
                            return
                        acknowledged[f"{name}/{number}"] = body
                        if over.is_set():
                            return

            writers = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
            for writer in writers:
                writer.start()
            until(lambda: len(acknowledged) > 40)
            pid = supervisor.status()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            for writer in writers:
                writer.join()
            until(lambda: supervisor.status()[0].restarts == 1 and supervisor.status()[0].state is ServiceState.READY)
            assert_all_there(access, acknowledged)
            with closing(access.janitor()) as s3:
                for number in range(20):
                    s3.put_object(Bucket="vault", Key=f"late/{number}", Body=b"late" * 1000)
                    acknowledged[f"late/{number}"] = b"late" * 1000
            began = time.monotonic()
        assert time.monotonic() - began < 10, "stopping is quick once its clients are gone"
        with Supervisor(folder.layout.run) as supervisor:  # and after an orderly end, right behind the last answer
            again = start_seaweedfs(supervisor, folder.layout)
            assert again.endpoint == access.endpoint
            assert_all_there(again, acknowledged)


def assert_all_there(access: Any, acknowledged: dict[str, bytes]) -> None:
    with closing(access.janitor()) as s3:
        lost = [
            key for key, body in acknowledged.items() if s3.get_object(Bucket="vault", Key=key)["Body"].read() != body
        ]
    assert lost == []


def test_a_service_that_never_stays_up_is_given_up(tmp_path: Path) -> None:
    policy = RestartPolicy(first_delay_s=0.05, max_quick_failures=3)
    with DataFolder(tmp_path / "data") as folder, Supervisor(folder.layout.run, policy=policy) as supervisor:
        supervisor.start(sleeper(folder, "import time; time.sleep(0.3)", name="restless"))
        with pytest.raises(ServiceFailed, match="restless ended with code 0, 4 times in a row") as caught:
            supervisor.wait(30)
        assert "sleeper.log" in caught.value.next_step
        assert supervisor.status()[0].state is ServiceState.FAILED


def test_a_service_that_does_not_start_names_its_log(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder, Supervisor(folder.layout.run) as supervisor:
        service = Service(
            name="broken",
            argv=(sys.executable, "-c", "raise SystemExit(3)"),
            log=folder.layout.logs / "broken.log",
            ready=lambda: False,
        )
        with pytest.raises(ServiceFailed, match="broken ended with code 3 before it answered") as caught:
            supervisor.start(service)
        assert "broken.log" in caught.value.next_step
        assert supervisor.status() == ()


def test_a_killed_guardian_is_replaced(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder, Supervisor(folder.layout.run):
        mark = mark_of(folder.layout.root)

        def guardians() -> list[psutil.Process]:
            return [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or ())]

        (first,) = guardians()
        first.kill()
        until(lambda: [p.pid for p in guardians()] not in ([], [first.pid]))


def test_logs_are_private(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder, Supervisor(folder.layout.run) as supervisor:
        start_valkey(supervisor, folder.layout)
        open_to_others = [p for p in folder.layout.root.rglob("*") if p.lstat().st_mode & 0o077]
        assert open_to_others == []


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data"), pytest.raises(Busy, match=f"process {os.getpid()}"):
        DataFolder(tmp_path / "data")
    DataFolder(tmp_path / "data").close()


def test_a_full_volume_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="MiB free"):
        DataFolder(tmp_path / "data", min_free_bytes=1 << 60)
    DataFolder(tmp_path / "data").close()  # and the lock is free again


def test_an_open_folder_is_closed_and_a_file_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    with DataFolder(data):
        assert data.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigInvalid, match="file"):
        DataFolder(tmp_path / "file")


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("coordinator.embedded.oscalls.current_user", lambda: 4711)
    with pytest.raises(ConfigInvalid, match="belongs to another user"):
        DataFolder(tmp_path / "data")


def test_a_named_port_in_use_is_named(tmp_path: Path) -> None:
    with (
        DataFolder(tmp_path / "data") as folder,
        Supervisor(folder.layout.run) as supervisor,
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
    ):
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            start_valkey(supervisor, folder.layout, port=port)
        with pytest.raises(PortInUse, match=str(port)):
            start_seaweedfs(supervisor, folder.layout, s3_port=port)


def test_a_remembered_port_that_is_taken_is_given_up(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder:
        with Supervisor(folder.layout.run) as supervisor:
            first = start_valkey(supervisor, folder.layout).port
        with closing(socket.create_server(("127.0.0.1", first))), Supervisor(folder.layout.run) as supervisor:
            assert start_valkey(supervisor, folder.layout).port != first


def test_free_ports_are_free_with_their_offset() -> None:
    ports = find_free(4, also_free_at=10_000)
    assert len(set(ports)) == 4
    assert all_free([*ports, *(port + 10_000 for port in ports)])
    assert max(ports) + 10_000 < 65_536
