"""How messages come from the broker: on Redis they are gone when they arrive.

Celery's transport for Redis notes every message it hands out in two keys, and removes the notes when the task
acknowledges: two round trips on the loop that all messages go through. Ours are acknowledged before the
work begins in any case, and a lost one is sent again from PostgreSQL, so nothing is promised by the notes.
RabbitMQ keeps them: they bound what it hands out.
"""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_after_setup
from celery.worker.request import Request as CeleryRequest


class Request(CeleryRequest):
    """A message at this worker."""

    def acknowledge(self) -> None:
        if _Broker.keeps_notes:
            super().acknowledge()
        self.acknowledged = True


class _Broker:
    keeps_notes = True


@celeryd_after_setup.connect
def let_go_at_delivery(instance: Any, **_: Any) -> None:
    # Set for Redis alone; there it bounds what is handed out.
    if not instance.app.conf.worker_disable_prefetch:
        return
    _Broker.keeps_notes = False
    for queue in instance.app.amqp.queues.consume_from.values():
        queue.no_ack = True
