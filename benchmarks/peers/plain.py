"""Plain Celery on Redis: no row anywhere says that a job exists.

The broker comes from ``CELERY_BROKER_URL``, which Celery reads itself.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, Task

from benchmarks import stamps

app = Celery("plain")
app.conf.update(
    task_ignore_result=True,
    task_default_queue="plain",
    worker_send_task_events=True,
    # The same as ours: a crash of the broker connection at start is retried, without a warning.
    broker_connection_retry_on_startup=True,
)


@app.task(bind=True, name="plain.early")
def early(self: Task[Any, None]) -> None:
    """Acknowledged before it runs, Celery's default: a killed worker loses the job."""
    stamps.note(stamps.START, str(self.request.id))
    stamps.note(stamps.FINISH, str(self.request.id))


@app.task(bind=True, name="plain.late", acks_late=True)
def late(self: Task[Any, None]) -> None:
    """Acknowledged after it ran: a killed worker's job comes back after the visibility time-out."""
    stamps.note(stamps.START, str(self.request.id))
    stamps.note(stamps.FINISH, str(self.request.id))
