"""Celery on Redis beside a hand-written table of jobs, as teams do who must not lose one.

Three commits a job: accepted, running, done. No lease, no log, no events.
"""

from __future__ import annotations

import os
import threading
from typing import Any, LiteralString

import psycopg
from celery import Task

from benchmarks import stamps
from benchmarks.peers.plain import app

TABLE: LiteralString = (
    "CREATE TABLE IF NOT EXISTS peer_job (id uuid PRIMARY KEY, state text NOT NULL, "
    "payload jsonb NOT NULL, created_at timestamptz DEFAULT now(), started_at timestamptz, "
    "finished_at timestamptz)"
)
_held = threading.local()


def connection() -> psycopg.Connection:
    """This thread's connection; each statement is a transaction."""
    if not hasattr(_held, "connection"):
        url = os.environ["DATABASE_URL"]  # noqa: TID251 - a peer runs without our settings
        _held.connection = psycopg.connect(url, autocommit=True)
    opened: psycopg.Connection = _held.connection
    return opened


def accept(job: str) -> None:
    connection().execute(
        "INSERT INTO peer_job (id, state, payload) VALUES (%s, 'queued', '{}')", [job]
    )
    rows.apply_async(task_id=job)


@app.task(bind=True, name="plain.rows", acks_late=True)
def rows(self: Task[Any, None]) -> None:
    job = str(self.request.id)
    connection().execute(
        "UPDATE peer_job SET state = 'running', started_at = now() WHERE id = %s", [job]
    )
    stamps.note(stamps.START, job)
    connection().execute(
        "UPDATE peer_job SET state = 'done', finished_at = now() WHERE id = %s", [job]
    )
    stamps.note(stamps.FINISH, job)
