"""The embedded system: Valkey, SeaweedFS, the coordinator and this machine's worker, as supervised processes of ours.

It is the real system in small: the queue has its users, the store its users, versions and locks, and the host is enrolled
with a vault credentials file like any other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coordinator
from common.contracts.operator import CredentialsCreate, VaultCreate, VaultView
from common.errors import ConfigInvalid, HostNotFound, ServiceFailed, StatewardError, error_classes
from common.privatefiles import write_private
from common.secret import Secret
from common.vault.keys import generate_passphrase
from coordinator.client import ApiClient
from coordinator.embedded.datafolder import DataFolder, DataLayout
from coordinator.embedded.ports import find_free, require_free, require_known
from coordinator.embedded.processes import Service, Supervisor
from coordinator.embedded.seaweedfs import StoreAccess, start_seaweedfs
from coordinator.embedded.valkey import QueueAccess, host_user, start_valkey
from coordinator.queue_users import host_password_hashes
from coordinator.settings import load_settings

VAULT = "local"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READY_S = 60.0
REGISTER_S = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports that a person named; None takes a free one."""

    api: int | None = None
    store: int | None = None
    queue: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The system, up. Everything ends with the context that gave it."""

    layout: DataLayout
    api: ApiClient
    supervisor: Supervisor
    vault: VaultView
    host_id: str
    passphrase_file: Path
    passphrase: Secret[str] | None
    """Only when it was made by this run: to be shown once."""
    recovery_credentials: Path
    """An AWS credentials file with reading rights alone: for `recover`."""

    @property
    def metrics_url(self) -> str:
        return f"{self.api.url}/metrics/fleet"


@contextmanager
def embedded_system(data: Path, ports: Ports, *, say: Say, sleep: Callable[[float], None]) -> Iterator[Running]:
    """Start everything, enrol this machine if it is not, and end everything on the way out.

    Raises:
        Busy: another run holds the data folder.
        PortInUse, NoSpace, ConfigInvalid, ServiceFailed.
    """
    _require_named(ports)
    with DataFolder(data) as folder, Supervisor(folder.layout.run) as supervisor:
        layout = folder.layout
        say("Starting Valkey and SeaweedFS …")
        queue, store = _start_servers(supervisor, layout, ports)
        recovery = _recovery_credentials(layout, store)
        say("Starting the coordinator …")
        with _start_coordinator(supervisor, layout, ports, queue, store, sleep) as api:
            vault = _vault(api, say, sleep)
            passphrase_file, fresh = _passphrase(layout)
            host_id = _enrol(layout, api, vault, passphrase_file, say)
            _start_worker(supervisor, layout)
            yield Running(
                layout=layout,
                api=api,
                supervisor=supervisor,
                vault=vault,
                host_id=host_id,
                passphrase_file=passphrase_file,
                passphrase=fresh,
                recovery_credentials=recovery,
            )


def worker_command(*arguments: str) -> tuple[str, ...]:
    """The worker's program, of this installation."""
    return (sys.executable, "-m", "worker", *arguments)


def program_folder() -> Path:
    """Where the packages are: a program is started there."""
    return Path(coordinator.__file__).resolve().parents[1]


def child_environment(**more: str) -> dict[str, str]:
    """All that a process of ours is given."""
    return {"PATH": PATH, "HOME": str(Path.home()), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **more}


def run_worker(*arguments: str, timeout_s: float, **environment: str) -> dict[str, Any]:
    """Run a command of the worker that prints one JSON document, and give that.

    Raises:
        StatewardError: what the command ended with, by its code; ServiceFailed when it said nothing of use.
    """
    done = subprocess.run(
        worker_command(*arguments),
        cwd=program_folder(),
        env=child_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout or b"null") or {}
    except ValueError:
        document = {}
    if document:
        return document
    words = done.stderr.decode(errors="replace").strip().splitlines()
    try:
        told = json.loads(words[-1])["error"]
        known = {cls.code: cls for cls in error_classes()}
        raise known.get(told["code"], ServiceFailed)(told["message"], next_step=told["next_step"])
    except (IndexError, KeyError, TypeError, ValueError):
        said = words[0] if words else "nothing"
        raise ServiceFailed(f"The worker's command {arguments[0]} ended with code {done.returncode}: {said}") from None


def _require_named(ports: Ports) -> None:
    """Before anything starts: a person who mistyped a port should not wait for a store to come up and go."""
    for port, purpose in ((ports.api, "the API"), (ports.store, "the store"), (ports.queue, "the queue")):
        if port is not None:
            require_free(port, purpose=purpose)


def _start_servers(supervisor: Supervisor, layout: DataLayout, ports: Ports) -> tuple[QueueAccess, StoreAccess]:
    users = [host_user(host, hashed) for host, hashed in host_password_hashes(load_settings(data=layout.root))]
    with ThreadPoolExecutor(2, "start") as pool:
        queue = pool.submit(start_valkey, supervisor, layout, host_users=users, port=ports.queue)
        store = pool.submit(start_seaweedfs, supervisor, layout, s3_port=ports.store)
        return queue.result(), store.result()


@contextmanager
def _start_coordinator(
    supervisor: Supervisor,
    layout: DataLayout,
    ports: Ports,
    queue: QueueAccess,
    store: StoreAccess,
    sleep: Callable[[float], None],
) -> Iterator[ApiClient]:
    port = _api_port(layout, ports.api)
    layout.coordinator.mkdir(mode=0o700, exist_ok=True)
    write_private(layout.coordinator / "stateward.toml", _settings(port, queue, store))
    url = f"http://127.0.0.1:{port}"
    token_file = layout.coordinator / "admin-token"

    def answers() -> bool:
        """Asked again whenever the coordinator was started again."""
        try:
            with ApiClient(url, Secret("none"), timeout_s=2) as probe:
                return probe.health().status == "ok" and token_file.exists()
        except StatewardError:
            return False

    supervisor.start(
        Service(
            name="coordinator",
            argv=(sys.executable, "-m", "coordinator", "serve", "--data", str(layout.root)),
            environment=child_environment(),
            cwd=program_folder(),
            log=layout.logs / "coordinator.log",
            ready=answers,
            ready_within_s=READY_S,
            stop_within_s=15,
        )
    )
    del sleep
    with ApiClient(url, Secret(token_file.read_text().strip())) as api:
        yield api


def _api_port(layout: DataLayout, named: int | None) -> int:
    """The port of the last run, because the enrolled hosts know that URL; else the one named, or a free one.

    Raises:
        PortInUse; ConfigInvalid: another one is named than the hosts know.
    """
    try:
        last = int(str(json.loads((layout.coordinator / "api.json").read_text())["url"]).rpartition(":")[2])
    except (OSError, ValueError, KeyError):
        return find_free()[0] if named is None else require_free(named, purpose="the API")
    if named not in {None, last}:
        raise ConfigInvalid(
            f"The hosts of this data folder know the API on port {last}, not {named}.",
            next_step="Leave --api-port away, or begin with another folder by --data.",
        )
    return require_known(last, purpose="the API")


def _settings(port: int, queue: QueueAccess, store: StoreAccess) -> str:
    """The coordinator's settings file; 0600, because it holds the passwords of queue and store."""
    top = {"listen_host": "127.0.0.1", "listen_port": port, "metrics_networks": ["127.0.0.0/8"]}
    storage = {
        "endpoint": store.endpoint,
        "region": store.region,
        "janitor_access_key": store.janitor_key,
        "janitor_secret_key": store.janitor_secret.reveal(),
        "broker_access_key": store.broker_key,
        "broker_secret_key": store.broker_secret.reveal(),
        "role_arn": store.role_arn,
    }
    queue_settings = {
        "url": f"redis://{queue.host}:{queue.port}/0",
        "publisher_password": queue.publisher_password.reveal(),
        "admin_password": queue.admin_password.reveal(),
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in top.items()]
    for section, values in (("storage", storage), ("queue", queue_settings)):
        lines += ["", f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join([*lines, ""])


def _vault(api: ApiClient, say: Say, sleep: Callable[[float], None]) -> VaultView:
    found = next((vault for vault in api.vaults() if vault.name == VAULT), None)
    if found is None:
        say(f"Creating the vault {VAULT} …")
        found = api.create_vault(VaultCreate(name=VAULT))
    waited = 0.0
    while found.state != "ready":
        if waited > READY_S:
            raise ServiceFailed(f"The vault {VAULT} is still {found.state} after {READY_S:.0f} seconds.")
        sleep(0.2)
        waited += 0.2
        found = api.vault(found.name)
    return found


def _passphrase(layout: DataLayout) -> tuple[Path, Secret[str] | None]:
    path = layout.root / "passphrase"
    if path.exists():
        return path, None
    fresh = generate_passphrase()
    write_private(path, fresh.reveal() + "\n")
    return path, fresh


def _enrol(layout: DataLayout, api: ApiClient, vault: VaultView, passphrase_file: Path, say: Say) -> str:
    """This machine's host id. The passphrase lies in a file that was just read back, so its key counts as saved."""
    state = ("--state", str(layout.worker))
    status = run_worker("status", "--json", *state, timeout_s=REGISTER_S)
    host_id = status.get("host")
    if not host_id:
        say("Enrolling this machine with a vault credentials file …")
        credentials = api.create_credentials(vault.name, CredentialsCreate(uses=1, valid_s=3600))
        file = layout.run / "vault-credentials.json"
        write_private(file, json.dumps({"stateward": "vault credentials", "token": credentials.token}))
        status = run_worker(
            "register",
            "--credentials",
            str(file),
            "--passphrase-file",
            str(passphrase_file),
            "--json",
            *state,
            timeout_s=REGISTER_S,
        )
        host_id = status["host"]
    if status.get("state") != "active":
        run_worker("passphrase", "confirm", str(status["fingerprint"]), "--json", *state, timeout_s=REGISTER_S)
    if not isinstance(host_id, str):
        raise HostNotFound("The worker does not say which host it is.")
    return host_id


def _start_worker(supervisor: Supervisor, layout: DataLayout) -> None:
    never = json.dumps([str(layout.root)])
    supervisor.start(
        Service(
            name="worker",
            argv=worker_command("run", "--state", str(layout.worker)),
            environment=child_environment(STATEWARD_START_SPREAD_S="0", STATEWARD_NEVER_BACK_UP=never),
            cwd=program_folder(),
            log=layout.logs / "worker.log",
            ready=lambda: True,
            stop_within_s=15,
        )
    )


def _recovery_credentials(layout: DataLayout, store: StoreAccess) -> Path:
    path = layout.store / "recovery-credentials"
    lines = [
        "[default]",
        f"aws_access_key_id = {store.recovery_key}",
        f"aws_secret_access_key = {store.recovery_secret.reveal()}",
        "",
    ]
    write_private(path, "\n".join(lines))
    return path
