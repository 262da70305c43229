"""One process of the coordinator: its composition root, its roles, its end.

`serve` returns when it was told to stop (SIGTERM, SIGINT, or `stop`): requests and steps under way end first.
"""

from __future__ import annotations

import errno
import json
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum

import uvicorn

from common.errors import ConfigInvalid, PortInUse
from common.privatefiles import make_private_folder, write_private
from common.telemetry import get_logger
from coordinator.access.facts import say_api_alive
from coordinator.access.tokens import first_admin_token
from coordinator.app import make_app
from coordinator.clock import Clock
from coordinator.db import Database
from coordinator.janitor import janitor_loops
from coordinator.jobs.leases import restart_lease_clocks
from coordinator.keys import open_keys
from coordinator.loops import Loop, LoopThreads
from coordinator.metrics import ProcessMetrics
from coordinator.migrate import migrate
from coordinator.queue_users import QueueUsers
from coordinator.scheduler import scheduler_loops
from coordinator.service import Services
from coordinator.settings import Settings
from coordinator.storage import Storage

log = get_logger(__name__)

_GRACE_S = 10
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Role(StrEnum):
    API = "api"
    SCHEDULER = "scheduler"
    JANITOR = "janitor"


ALL_ROLES = frozenset(Role)


def serve(
    settings: Settings,
    *,
    clock: Clock,
    roles: Collection[Role] = ALL_ROLES,
    ready: Callable[[str], None] = lambda _url: None,
    stop: threading.Event | None = None,
) -> None:
    """Run until told to stop. `ready` is called with the API's URL once it answers ("" without the api role).

    Raises:
        PortInUse, ConfigInvalid.
    """
    if not roles:
        raise ConfigInvalid("No role is named.")
    listener = _listen(settings) if Role.API in roles else None
    url = _url(settings, listener)
    try:
        with composed(settings, clock=clock, public_url=settings.public_url or url) as services:
            threads = LoopThreads(_loops(services, roles))
            threads.start()
            try:
                if listener is None:
                    ready("")
                    _wait(stop)
                else:
                    _serve_api(services, listener, url, ready, stop)
            finally:
                threads.stop()
    finally:
        if listener is not None:
            listener.close()
    log.info("stopped")


@contextmanager
def composed(settings: Settings, *, clock: Clock, public_url: str) -> Iterator[Services]:
    """The real parts, from one settings object; the database is brought to this revision."""
    make_private_folder(settings.data)
    make_private_folder(settings.folder)
    db = Database(settings.sql_url)
    users: QueueUsers | None = None
    try:
        migrate(db)
        keys = open_keys(settings.folder)
        users = QueueUsers(settings.queue, keys) if settings.queue.url else None
        first_admin_token(db, settings.folder / "admin-token", now=clock())
        yield Services(
            settings=settings,
            db=db,
            keys=keys,
            storage=Storage(settings.storage),
            queue_users=users,
            metrics=ProcessMetrics(),
            clock=clock,
            public_url=public_url,
        )
    finally:
        if users is not None:
            users.close()
        db.dispose()


class _Server(uvicorn.Server):
    """uvicorn, which says when it answers and stops when `stop` is set."""

    def __init__(self, config: uvicorn.Config, *, started: Callable[[], None], stop: threading.Event | None) -> None:
        super().__init__(config)
        self._on_started = started
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but without raising the signal again at the end: it would kill what still has to end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        if self._stop is not None and self._stop.is_set():
            return True
        return await super().on_tick(counter)


def _serve_api(
    services: Services,
    listener: socket.socket,
    url: str,
    ready: Callable[[str], None],
    stop: threading.Event | None,
) -> None:
    settings = services.settings
    config = uvicorn.Config(
        make_app(services),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        lifespan="off",
    )

    def started() -> None:
        write_private(settings.folder / "api.json", json.dumps({"url": url}).encode() + b"\n")
        log.info("serving", url=url)
        ready(url)

    _Server(config, started=started, stop=stop).run(sockets=[listener])


def _loops(services: Services, roles: Collection[Role]) -> tuple[Loop, ...]:
    loops: list[Loop] = []
    if Role.API in roles:
        restart_lease_clocks(services)
        loops.append(Loop("alive", lambda: _say_alive(services), services.settings.alive_s))
    if Role.SCHEDULER in roles:
        loops += scheduler_loops(services)
    if Role.JANITOR in roles:
        loops += janitor_loops(services)
    return tuple(loops)


def _say_alive(services: Services) -> None:
    with services.db.write() as session:
        say_api_alive(session, now=services.clock())


def _listen(settings: Settings) -> socket.socket:
    """Raises PortInUse, ConfigInvalid."""
    family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.listen_host, settings.listen_port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        where = f"{settings.listen_host}:{settings.listen_port}"
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"Another program listens on {where}.") from error
        raise ConfigInvalid(f"Setting listen_host, listen_port: {where} cannot be listened on ({error}).") from error
    return listener


def _url(settings: Settings, listener: socket.socket | None) -> str:
    if listener is None:
        return settings.public_url
    scheme = "https" if settings.tls_certificate is not None else "http"
    host = f"[{settings.listen_host}]" if ":" in settings.listen_host else settings.listen_host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"


def _wait(stop: threading.Event | None) -> None:
    """Without an API there is no server that handles the signals."""
    done = stop or threading.Event()
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: done.set())
    done.wait()
