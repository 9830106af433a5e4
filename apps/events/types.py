from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import models


class EventType(models.TextChoices):
    """The value events: what a person should see."""

    ACCEPTANCE = "task.acceptance"
    MILESTONE = "task.progress.milestone"
    RECEIPT = "task.receipt"
    ANOMALY = "anomaly.detected"
    RECOVERY_START = "recovery.start"
    RECOVERY_DONE = "recovery.done"


class Severity(models.TextChoices):
    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an event is about, by value: the record outlives the rows."""

    organization_id: UUID
    project_id: UUID
    run_id: UUID | None
    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorRef:
    """Who acted, by value."""

    kind: str
    id: UUID | None
    name: str
    organization_id: UUID
    token_id: UUID | None = None
    # The run that acts for this person, and its agent.
    agent_id: UUID | None = None
    run_id: UUID | None = None


# Acts of the platform itself are named for the part that acted, within the organization concerned.
def platform(part: str, *, organization_id: UUID) -> ActorRef:
    return ActorRef(kind="platform", id=None, name=part, organization_id=organization_id)


ONE_RECEIPT: Final = "events_event_one_receipt_per_run"
