"""What each of several writing processes does: transactions of different lengths, some rolled back."""

from __future__ import annotations

import os
import random
from uuid import UUID

from django.db import connection, transaction

from apps.events.services import outbox
from apps.events.types import EventType, Subject


def fork(writers: int, count: int, projects: list[str]) -> None:
    """Be several writers, and end when the last one has: one start of Django serves them all.

    Called before anything has connected to the database, so that nobody shares a connection.
    """
    children = []
    for number in range(writers):
        child = os.fork()
        if child == 0:
            write(number, count, projects)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * writers


def write(number: int, count: int, projects: list[str]) -> None:
    dice = random.Random(number)  # repeatable, not secret
    written = 0
    while written < count:
        size = min(dice.randint(1, 5), count - written)
        kept = dice.random() > 0.05
        with transaction.atomic():
            for n in range(written, written + size):
                _emit(UUID(dice.choice(projects)), writer=number, n=n, kept=kept)
            if dice.random() < 0.3:
                _pause(dice.random() * 0.004)
            transaction.set_rollback(not kept)
        written += size * kept


def _emit(project: UUID, **payload: object) -> None:
    subject = Subject(organization_id=project, project_id=project, run_id=None, trace_id="0" * 32)
    outbox.emit(EventType.MILESTONE, subject=subject, payload=payload)


def _pause(seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])
