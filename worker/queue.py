"""The Celery side of the agent: one Redis connection that sends AUTH, PING and BRPOP, and nothing else.

Settings are the measured ones of the design; each line that looks odd says what it prevents. The Redis user of a host
may PING, name itself and BRPOP its own list; redis-py and kombu would also send CLIENT SETINFO, HELLO 3 and CLIENT
MAINT_NOTIFICATIONS, which the ACL denies and logs: `QuietConnection` turns them off.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import redis
from celery import Celery
from celery.signals import setup_logging
from celery.worker import state
from kombu.entity import Exchange, Queue
from kombu.transport import redis as kombu_redis
from redis.maint_notifications import MaintNotificationsConfig

from common.contracts.enrolment import QueueAccess
from common.contracts.queue import JOB_TASK, queue_name

POLL_S = 5
REPLY_OVERDUE_S = 40.0


class Pulse:
    """When the consume loop last did something, and when Redis last answered it. Threads share it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._polled = clock()
        self._answered: float | None = None

    def polled(self) -> None:
        with self._lock:
            self._polled = self._clock()

    def answered(self) -> None:
        with self._lock:
            self._answered = self._clock()

    def lost(self) -> None:
        with self._lock:
            self._answered = None

    @property
    def silent_s(self) -> float:
        """Seconds since the loop last polled, or tried to connect."""
        with self._lock:
            return self._clock() - self._polled

    @property
    def reachable(self) -> bool:
        with self._lock:
            return self._answered is not None and self._clock() - self._answered < REPLY_OVERDUE_S


class _Quiet:
    """Mixed into redis-py's connections: RESP2, and no command that the host's user may not send."""

    def __init__(self, **options: Any) -> None:
        options.update(
            protocol=2,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        super().__init__(**options)


class QuietConnection(_Quiet, redis.Connection):
    pass


class QuietSslConnection(_Quiet, redis.SSLConnection):
    pass


class QuietChannel(kombu_redis.Channel):
    """kombu's channel, with quiet connections and a pulse."""

    connection_class: Any = QuietConnection
    connection_class_ssl: Any = QuietSslConnection
    pulse: Pulse | None = None
    from_transport_options: Any = (*kombu_redis.Channel.from_transport_options, "pulse")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._answered()  # to the PING

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self.pulse:
            self.pulse.polled()
        super()._brpop_start(timeout)  # type: ignore[no-untyped-call]

    def _brpop_read(self, **options: Any) -> Any:
        answer = None
        try:
            answer = super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except queue.Empty:
            self._answered()
            raise
        self._answered()
        return answer

    def close(self) -> None:
        """Without waiting for the BRPOP under way, as kombu does: a message that is popped just then, a check-in brings."""
        connection: Any = self._in_poll
        if connection and not self.closed:
            connection.disconnect()
            self._in_poll = False
        super().close()  # type: ignore[no-untyped-call]

    def _answered(self) -> None:
        if self.pulse:
            self.pulse.answered()


class QuietTransport(kombu_redis.Transport):
    Channel = QuietChannel

    def establish_connection(self) -> Any:
        client: Any = self.client
        pulse: Pulse | None = client.transport_options.get("pulse")
        if pulse is None:
            return super().establish_connection()  # type: ignore[no-untyped-call]
        pulse.polled()
        try:
            return super().establish_connection()  # type: ignore[no-untyped-call]
        except Exception:
            pulse.lost()
            raise


def broker_url(access: QueueAccess) -> str:
    """The access with its user and password inside; it is kept out of every log line."""
    parts = urlsplit(access.url)
    login = f"{quote(access.user, safe='')}:{quote(access.password, safe='')}"
    return urlunsplit((parts.scheme, f"{login}@{parts.netloc}", parts.path or "/0", "", ""))


def make_app(*, access: QueueAccess, host_id: str, ca_file: str, pulse: Pulse, take: Callable[[str], object]) -> Celery:
    """A Celery application with the one task, which hands its argument to `take` and must return in milliseconds."""
    name = queue_name(host_id)
    exchange = Exchange("", no_declare=True)  # type: ignore[no-untyped-call]
    own = Queue(name, exchange, routing_key=name, no_declare=True)  # type: ignore[no-untyped-call]
    app = Celery("stateward-worker", set_as_current=False, broker=broker_url(access))
    app.conf.update(
        broker_transport=QuietTransport,
        broker_transport_options={
            "pulse": pulse,
            "priority_steps": [0],  # else four lists a queue, three of which the ACL denies
            "queue_order_strategy": "priority",
            "ack_emulation": False,  # else ZADD, HSET and a sweep of shared keys
            "socket_timeout": 15,  # else a half-open link hangs the worker for ever
            "socket_connect_timeout": 10,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "polling_interval": POLL_S,
        },
        broker_use_ssl={"ssl_ca_certs": ca_file} if access.url.startswith("rediss:") and ca_file else None,
        broker_pool_limit=0,  # one connection a host
        broker_heartbeat=0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_queues=[own],
        task_default_queue=name,
        task_create_missing_queues=False,
        task_acks_late=False,  # with late acks a failed ack leaves a live worker that never consumes again
        task_ignore_result=True,
        result_backend=None,
        accept_content=["json"],
        task_serializer="json",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,  # ours are over in milliseconds; silences a warning
        enable_utc=True,
    )

    @app.task(name=JOB_TASK, ignore_result=True, typing=False, shared=False)  # type: ignore[untyped-decorator]
    def job(*args: Any, **_: Any) -> None:
        take(args[0] if len(args) == 1 and isinstance(args[0], str) else "")

    app.finalize()
    for builtin in [task for task in app.tasks if task != JOB_TASK]:
        app.tasks.unregister(builtin)  # who writes to Redis may name no other task, `celery.map` least of all
    return app


def consume(app: Celery) -> int:
    """Consume until `stop_consuming`; the exit code of Celery's worker (0: it was asked to stop).

    Only one a process at a time: Celery keeps its stop flags in a module.
    """
    setup_logging.connect(_keep_our_logging, weak=False)
    app.set_current()  # Celery's tracer looks the task up in the thread's current application
    worker = app.WorkController(
        pool_cls="solo",
        concurrency=1,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        task_events=False,
        send_events=False,
        loglevel="WARNING",
        hostname="stateward@host",  # never sent anywhere
    )
    worker.start()
    return int(worker.exitcode or 0)


def stop_consuming() -> None:
    """Safe in a signal handler and from other threads."""
    state.should_stop = 0


def allow_consuming() -> None:
    """Before the first `consume`, and before another one."""
    state.should_stop = None
    state.should_terminate = None


def _keep_our_logging(**_: Any) -> None:
    """Connected to `setup_logging`, so that Celery leaves the process's logging alone."""
