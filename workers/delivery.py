"""How messages come from the broker.

On Redis they are gone when they arrive. Celery's transport notes every message it hands out in two keys, and
removes the notes when the task acknowledges: two round trips on the loop that all messages go through. Ours
are acknowledged before the work begins in any case, and a lost one is sent again from PostgreSQL, so nothing
is promised by the notes. RabbitMQ keeps them: they bound what it hands out.

And they come together: Celery asks Redis for one message and, when it is here, for the next. Where short runs
are alone in their messages, slots would wait longer for them than the runs take.
"""

from __future__ import annotations

from queue import Empty
from time import monotonic
from typing import Any

from celery.signals import celeryd_after_setup
from celery.worker import state
from celery.worker.request import Request as CeleryRequest
from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from workers import lifespan


class Request(CeleryRequest):
    """A message at this worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # On the request itself: Celery derives a class from ours for each task, and overrides it there.
        self.on_success = self._make_way  # type: ignore[method-assign]

    def acknowledge(self) -> None:
        if _Broker.keeps_notes:
            super().acknowledge()
        self.acknowledged = True

    def _make_way(self, *args: Any, **kwargs: Any) -> None:
        """End, and have the next message asked for, whatever came of this one: the slot is free only now."""
        # Celery's own from here on; and a request that held itself would wait for the garbage collector.
        del self.on_success
        try:
            self.on_success(*args, **kwargs)
        finally:
            lifespan.look_for_more()


# The stubs know little of it: as far as they are asked, it is anything.
_RedisChannel: Any = redis.Channel


class Channel(_RedisChannel):  # type: ignore[misc]
    """Takes as many messages at once as slots are free. Needs Redis 7, or Valkey."""

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        keys = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        wait_s = (self.brpop_timeout if timeout is None else timeout) or 0
        free = max(1, _Broker.slots - len(state.reserved_requests))
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self._in_poll.send_command("BLMPOP", wait_s, len(keys), *keys, "RIGHT", "COUNT", free)

    def _brpop_read(self, **options: Any) -> bool:
        try:
            found = self._answer(**options)
            if not found:
                raise Empty
            key, messages = found
            queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            for message in messages:
                # What kombu's own channel calls for its one message.
                self.connection._deliver(loads(bytes_to_str(message)), queue)  # noqa: SLF001
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _answer(self, **options: Any) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BLMPOP", **options)
        except self.connection_errors:
            # The loop connects anew.
            self.client.connection.disconnect()
            raise


class _Broker:
    keeps_notes = True
    slots = 1


@celeryd_after_setup.connect
def let_go_at_delivery(instance: Any, **_: Any) -> None:
    # Set for Redis alone; there it bounds what is handed out.
    if not instance.app.conf.worker_disable_prefetch:
        return
    _Broker.keeps_notes = False
    _Broker.slots = instance.concurrency
    # Celery makes the channel later on, and has no setting for its class.
    redis.Transport.Channel = Channel
    for queue in instance.app.amqp.queues.consume_from.values():
        queue.no_ack = True
