"""The queue as Celery sees it, on the coordinator's side: it publishes, one LPUSH a job, and nothing else.

Default exchange and `no_declare=True`: no `_kombu.binding.*` key exists through which a host could bind itself to
another host's list. `Queue` objects, since a name costs half the speed. The signed job is the only argument, and
is left out of the headers' `argsrepr`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError, OperationalError
from kombu.messaging import Producer
from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from common.contracts.queue import JOB_TASK, queue_name
from common.errors import QueueUnavailable
from common.secret import Secret
from coordinator.queue_users import PUBLISHER

BATCH = 500
DEFAULT_EXCHANGE = Exchange("", type="direct", no_declare=True)  # type: ignore[no-untyped-call]
TRANSPORT_OPTIONS: dict[str, Any] = {
    "priority_steps": [0],
    "queue_order_strategy": "priority",
    "socket_timeout": 15,
    "socket_connect_timeout": 10,
    "socket_keepalive": True,
    "health_check_interval": 25,
    "client_name": PUBLISHER,
    "max_retries": 1,  # else each call waits some 6 s for a queue that is down
    "interval_start": 0,
    "interval_step": 0,
}


class _Quiet:
    """Mixed into redis-py's connections: RESP2, and no command that `coord-pub` may not send."""

    def __init__(self, **options: Any) -> None:
        options.update(
            protocol=2,
            driver_info=None,
            retry=Retry(NoBackoff(), 0),  # the outbox is tried again: nothing waits inside a publish
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        super().__init__(**options)


class QuietConnection(_Quiet, redis.Connection):
    pass


class QuietSslConnection(_Quiet, redis.SSLConnection):
    pass


class QuietChannel(kombu_redis.Channel):
    connection_class: Any = QuietConnection
    connection_class_ssl: Any = QuietSslConnection


class QuietTransport(kombu_redis.Transport):
    Channel = QuietChannel


@dataclass(frozen=True, slots=True)
class Emission:
    """One message: to which host's list, and for which job."""

    host_id: str
    job_id: str
    message: str


def host_queue(host_id: str) -> Queue:
    name = queue_name(host_id)
    return Queue(name, exchange=DEFAULT_EXCHANGE, routing_key=name, no_declare=True)  # type: ignore[no-untyped-call]


def make_celery(url: str, password: Secret[str]) -> Celery:
    """The application of one process; it opens no connection."""
    app = Celery("stateward", broker=_with_user(url, password), set_as_current=False)
    app.conf.update(
        broker_transport=QuietTransport,
        broker_transport_options=TRANSPORT_OPTIONS,
        broker_pool_limit=0,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_create_missing_queues=False,
        task_default_exchange="",
        task_publish_retry=False,
        task_send_sent_event=False,
        worker_enable_remote_control=False,
        event_queue_prefix="",
    )
    return app


class JobQueue:
    """Publishes to the hosts' lists. Not for use by several threads at once."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None

    def publish(self, emissions: Sequence[Emission]) -> None:
        """All of them, or QueueUnavailable: then some may have arrived, and sending them again is harmless."""
        self._call(lambda connection: self._publish(connection, emissions))

    def length(self, host_id: str) -> int:
        """How many messages lie in the host's list. Raises QueueUnavailable."""
        length: int = self._call(lambda connection: connection.default_channel.client.llen(queue_name(host_id)))
        return length

    def delete(self, host_id: str) -> None:
        """The list of a removed host. Raises QueueUnavailable."""
        self._call(lambda connection: connection.default_channel.client.delete(queue_name(host_id)))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.release()
            self._connection = None

    def _publish(self, connection: Any, emissions: Sequence[Emission]) -> None:
        producer: Any = Producer(connection.default_channel, auto_declare=False)  # type: ignore[no-untyped-call]
        with producer.batch(BATCH):
            for emission in emissions:
                message = self._app.amqp.as_task_v2(
                    emission.job_id, JOB_TASK, args=(emission.message,), argsrepr="", kwargsrepr="", ignore_result=True
                )
                self._app.amqp.send_task_message(
                    producer, JOB_TASK, message, queue=host_queue(emission.host_id), declare=[], retry=False
                )

    def _call(self, action: Callable[[Any], Any]) -> Any:
        try:
            if self._connection is None:
                self._connection = self._app.connection_for_write()
            return action(self._connection)
        except (redis.RedisError, KombuError, OperationalError, OSError) as error:
            self.close()
            raise QueueUnavailable(f"The queue cannot be reached: {error}") from error


def _with_user(url: str, password: Secret[str]) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{PUBLISHER}:{password.reveal()}@{rest}"
