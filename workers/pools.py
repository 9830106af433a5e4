"""The queues of messages that are for certain workers: one for each kind of worker there is.

A worker takes messages from the queue that all share and from that of its pool. The leader names the pool,
because it knows who is alive and has room; START refuses whoever is of another one.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from celery import Celery
from django.conf import settings
from kombu import Queue

# RabbitMQ forgets the queue of a version that nobody runs any more.
_FORGOTTEN_AFTER: Final = timedelta(hours=1)


def queue(app: Celery, pool: str) -> Queue:
    """The queue of a pool, made alike by who sends and who listens."""
    name = f"{settings.AOS_WORKER_QUEUE}.{pool}"
    queues = app.amqp.queues
    if name not in queues:
        made = queues.new_missing(name)
        made.expires = _FORGOTTEN_AFTER.total_seconds()  # type: ignore[attr-defined]  # not in the stubs
        queues.add(made)
    return queues[name]
