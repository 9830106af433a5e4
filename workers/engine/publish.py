"""Sending claimed runs to the workers: ids only, in one round trip where the broker allows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from celery import Celery
from kombu import Connection, Producer
from kombu.exceptions import KombuError
from opentelemetry import context
from redis.exceptions import RedisError

from apps.core import tracing
from apps.core.errors import AosError
from apps.runs.types import Dispatch

EXECUTE: Final = "aos.runs.execute"


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

    def publish(self, dispatches: Sequence[Dispatch]) -> None:
        """Send one message per run, or raise ``BrokerAway``; then some may have been sent.

        That is harmless: a message whose claim was handed back finds its token void.
        """
        try:
            producer = self._open()
            # Buffered into one pipeline on Redis; message by message on other brokers.
            with producer.batch():  # type: ignore[attr-defined]  # newer than the stubs
                for dispatch in dispatches:
                    self._send(producer, dispatch)
        except (KombuError, RedisError, OSError) as error:
            self.close()
            raise BrokerAway(reason=str(error)) from error

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def _open(self) -> Producer:
        if self._producer is None:
            self._connection = self._app.connection_for_write()
            self._connection.ensure_connection(max_retries=1, timeout=2)
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        return self._producer

    def _send(self, producer: Producer, dispatch: Dispatch) -> None:
        # The message continues the trace of the request that submitted the run.
        attached = context.attach(tracing.context_of(dispatch.trace))
        try:
            self._app.send_task(
                EXECUTE,
                args=[dispatch.run_id, dispatch.token],
                task_id=dispatch.task_id,
                producer=producer,
                # What Flower shows instead of the arguments.
                argsrepr=dispatch.name,
                shadow=dispatch.name,
                retry=False,
            )
        finally:
            context.detach(attached)
