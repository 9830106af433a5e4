"""What the tests of the events need besides ``tests.factories``."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.events.models import Event, OutboxEntry
from apps.events.services import outbox, relay
from apps.events.types import EventType, Subject
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.identity.services import tokens
from apps.projects.models import Project


def subject_of(project: Project, run_id: UUID | None = None) -> Subject:
    return Subject(
        organization_id=project.organization_id,
        project_id=project.pk,
        run_id=run_id,
        trace_id="0" * 32,
    )


def emit(
    project: Project,
    event: EventType = EventType.MILESTONE,
    run_id: UUID | None = None,
    **payload: Any,
) -> OutboxEntry:
    """One event, committed to the outbox."""
    with transaction.atomic():
        return outbox.emit(event, subject=subject_of(project, run_id), payload=payload)


def move(limit: int = 500) -> int:
    """What the engine does once."""
    with transaction.atomic():
        return relay.move(limit)


def publish(project: Project, count: int = 1, **payload: Any) -> None:
    """Events that are in the log already, payload ``n`` counting from where the log ended."""
    start = Event.objects.filter(project_id=project.pk).count()
    with transaction.atomic():
        for number in range(start + 1, start + count + 1):
            outbox.emit(
                EventType.MILESTONE,
                subject=subject_of(project),
                payload={"n": number} | payload,
            )
    while move():
        pass


def log_of(project: Project) -> list[Event]:
    return list(Event.objects.after(0, project_id=project.pk))


def token_for(user: User, *scopes: str) -> str:
    return tokens.issue(by=Actor(user=user), name="test", scopes=scopes or ("event:read",))[1]


def seqs(texts: list[str]) -> list[int]:
    return [json.loads(text)["seq"] for text in texts]
