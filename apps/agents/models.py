"""The registry: agents and their versions. A released version never changes (a trigger says so)."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q

from apps.agents.types import AgentKind, VersionState
from apps.core.models import BaseModel
from apps.identity.models import Organization, User, reaching
from apps.identity.types import Role


class AgentQuerySet(models.QuerySet["Agent"]):
    def visible_to(self, user: User) -> Self:
        """Agents belong to the whole organization; running one needs a role in a project."""
        return self.of(user).filter(removed_at=None)

    def of(self, user: User) -> Self:
        """Those that were deleted as well: records and runs go on naming them."""
        return self.filter(organization=user.organization_id)

    def operated_by(self, user: User) -> Self:
        """Agents over which the person holds the operator's role, whatever they hold elsewhere."""
        return self.filter(reaching(user, agent_ref="pk", role=Role.OPERATOR))

    def released(self) -> Self:
        return self.filter(current__isnull=False)


class Agent(BaseModel):
    """A registered worker. ``current`` points at the released version that new runs use."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="agents")
    slug = models.SlugField(max_length=64)
    title = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    kind = models.CharField(max_length=16, choices=AgentKind)
    current = models.ForeignKey(
        "AgentVersion", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    # Deleted: nothing new begins with it, and its runs stay. Its slug is free for another.
    removed_at = models.DateTimeField(null=True, editable=False)

    objects = AgentQuerySet.as_manager()

    class Meta:
        ordering = ["title", "id"]
        constraints = [
            models.UniqueConstraint(
                name="agents_agent_one_slug_each",
                fields=["organization", "slug"],
                condition=Q(removed_at=None),
            )
        ]

    def __str__(self) -> str:
        return self.title


class AgentVersion(BaseModel):
    """What an agent is at one moment: its files, command, input schema and limits."""

    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(
        max_length=16, choices=VersionState, default=VersionState.DRAFT, editable=False
    )
    spec = models.JSONField()
    released_at = models.DateTimeField(null=True, editable=False)
    released_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, editable=False, related_name="+"
    )

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(
                name="agents_agentversion_one_number_each", fields=["agent", "number"]
            ),
            models.CheckConstraint(
                name="agents_agentversion_released_iff_dated",
                condition=Q(state=VersionState.RELEASED, released_at__isnull=False)
                | Q(state=VersionState.DRAFT, released_at=None),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.agent.slug} v{self.number}"
