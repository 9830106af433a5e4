"""What limits are made of: what was decided, the places that are taken, the buckets of rates.

A part of ``models``, which loads it.
"""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q

from apps.agents.models import Agent
from apps.core.models import BaseModel
from apps.identity.models import User
from apps.projects.models import Project
from apps.runs.types import LONGEST_CONCURRENCY_KEY, LimitScope


class LimitQuerySet(models.QuerySet["Limit"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(organization_id=user.organization_id)


class Limit(BaseModel):
    """How many runs of one thing may be with workers at once, how often they may start, or that none may.

    ``gate`` says of what: the id of the organization, project or agent; for a key, a name made of both
    (``gates.of_key``). A run passes the gates of all that it belongs to.
    """

    organization_id = models.UUIDField()
    scope = models.CharField(max_length=16, choices=LimitScope)
    gate = models.UUIDField(unique=True)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, null=True, related_name="+")
    key = models.CharField(max_length=LONGEST_CONCURRENCY_KEY, blank=True)
    cap = models.PositiveIntegerField(null=True)
    # So many starts in so many seconds.
    rate_count = models.PositiveIntegerField(null=True)
    rate_seconds = models.PositiveIntegerField(null=True)
    # Of an organization: how many of its runs may wait. More are refused.
    queue_limit = models.PositiveIntegerField(null=True)
    paused_at = models.DateTimeField(null=True)
    pause_reason = models.CharField(max_length=200, blank=True)

    objects = LimitQuerySet.as_manager()

    class Meta:
        ordering = ["scope", "id"]
        constraints = [
            models.CheckConstraint(
                name="runs_limit_names_its_subject",
                condition=Q(scope=LimitScope.ORGANIZATION, project=None, agent=None, key="")
                | Q(scope=LimitScope.PROJECT, project__isnull=False, agent=None, key="")
                | Q(scope=LimitScope.AGENT, project=None, agent__isnull=False, key="")
                | Q(scope=LimitScope.KEY, project=None, agent=None) & ~Q(key=""),
            ),
            models.CheckConstraint(
                name="runs_limit_rate_is_whole",
                condition=Q(rate_count=None, rate_seconds=None)
                | Q(rate_count__gt=0, rate_seconds__gt=0),
            ),
            models.CheckConstraint(
                name="runs_limit_cap_lets_one_through", condition=Q(cap=None) | Q(cap__gt=0)
            ),
            models.CheckConstraint(
                name="runs_limit_queue_of_organization",
                condition=Q(queue_limit=None) | Q(scope=LimitScope.ORGANIZATION),
            ),
        ]
        indexes = [models.Index(fields=["organization_id"], name="runs_limit_of_organization")]

    def __str__(self) -> str:
        return f"{self.scope} {self.name}".strip()

    @property
    def is_set(self) -> bool:
        """Whether it limits anything besides a pause."""
        return any((self.cap, self.rate_count, self.queue_limit))

    @property
    def rate(self) -> dict[str, int] | None:
        if self.rate_count is None or self.rate_seconds is None:
            return None
        return {"count": self.rate_count, "seconds": self.rate_seconds}

    @property
    def name(self) -> str:
        """What it is about, as people write it."""
        if self.project is not None:
            return self.project.slug
        return self.agent.slug if self.agent is not None else self.key


class Hold(models.Model):
    """A place behind a gate that a run with a lease takes up. The index lets nobody else have it.

    Rows go with the lease, by a trigger, whoever deletes it.
    """

    gate = models.UUIDField()
    number = models.PositiveIntegerField()
    run_id = models.BigIntegerField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(name="runs_hold_once", fields=["gate", "number"])]

    def __str__(self) -> str:
        return f"place {self.number} of {self.gate}"


class Bucket(models.Model):
    """A token bucket, kept as the moment at which it is full again."""

    gate = models.UUIDField(primary_key=True)
    organization_id = models.UUIDField()
    full_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"full at {self.full_at}"
