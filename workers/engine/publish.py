"""Sending claimed runs to the workers: ids only, in one round trip where the broker allows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from amqp.exceptions import AMQPError
from celery import Celery
from kombu import Connection, Producer
from kombu.exceptions import KombuError
from opentelemetry import context
from redis.exceptions import RedisError

from apps.core import tracing
from apps.core.errors import AosError
from apps.runs.types import Dispatch, Message
from workers import pools

EXECUTE: Final = "aos.runs.execute"
EXECUTE_GROUP: Final = "aos.runs.execute_group"


class BrokerAway(AosError):
    """The messages were not sent; the claims go back to the queue."""

    code = "broker_away"
    retryable = True
    template = "The broker cannot be reached: {reason}"


class Publisher:
    """One connection to the broker, made again after a failure."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        # The queues that this connection has declared.
        self._declared: set[str] = set()

    def publish(self, messages: Sequence[Message]) -> None:
        """Send the messages, or raise ``BrokerAway``; then some may have been sent.

        That is harmless: a message whose claim was handed back finds its token void.
        """
        try:
            producer = self._open()
            # Buffered into one pipeline on Redis; message by message on other brokers.
            with producer.batch():  # type: ignore[attr-defined]  # newer than the stubs
                for message in messages:
                    queue = self._queue_of(message)
                    if len(message.dispatches) > 1:
                        self._send_group(producer, message, queue)
                    else:
                        self._send(producer, message.dispatches[0], queue)
        except (KombuError, AMQPError, RedisError, OSError) as error:
            self.close()
            raise BrokerAway(reason=str(error)) from error

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        self._declared.clear()
        if connection is not None:
            connection.release()

    def _open(self) -> Producer:
        if self._producer is None:
            # No heartbeat: nobody would send ours between two messages, and RabbitMQ would hang up.
            self._connection = self._app.connection_for_write(heartbeat=0)
            self._connection.ensure_connection(max_retries=1, timeout=2)
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        return self._producer

    def _queue_of(self, message: Message) -> str:
        if message.pool:
            return pools.queue(self._app, message.pool).name
        return self._app.amqp.default_queue.name

    def _send(self, producer: Producer, dispatch: Dispatch, queue: str) -> None:
        # The message continues the trace of the request that submitted the run.
        attached = context.attach(tracing.context_of(dispatch.trace))
        try:
            self._post(
                producer,
                queue,
                name=EXECUTE,
                task_id=dispatch.task_id,
                args=[dispatch.run_id, dispatch.token],
                # What Flower shows instead of the arguments.
                argsrepr=dispatch.name,
                shadow=dispatch.name,
            )
        finally:
            context.detach(attached)

    def _send_group(self, producer: Producer, message: Message, queue: str) -> None:
        """Several short runs in one message. The worker shows each of them in Flower by itself."""
        runs = [[dispatch.run_id, dispatch.token] for dispatch in message.dispatches]
        self._post(
            producer,
            queue,
            name=EXECUTE_GROUP,
            task_id=f"{message.dispatches[0].task_id}+{len(runs) - 1}",
            args=[runs],
            argsrepr=f"{len(runs)} runs",
        )

    def _post(self, producer: Producer, queue: str, *, name: str, **told: Any) -> None:
        """The end of Celery's ``send_task``. What comes before it costs twice as much as all the rest: it
        finds out anew, for each message, what its settings say and whether the queue is declared.
        """
        amqp = self._app.amqp
        message = amqp.create_task_message(name=name, kwargsrepr="{}", **told)
        declare = () if queue in self._declared else (amqp.queues[queue],)
        amqp.send_task_message(producer, name, message, queue=queue, declare=declare, retry=False)
        self._declared.add(queue)
