"""Who holds which sandbox. The drivers run in the machine room; here is only their record."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel
from apps.identity.models import User, reaching
from apps.sandboxes.types import SandboxState


class SandboxQuerySet(models.QuerySet["Sandbox"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(reaching(user, project_ref="project_id")).filter(
            organization_id=user.organization_id
        )

    def alive(self) -> Self:
        return self.exclude(state__in=[SandboxState.GONE, SandboxState.FAILED])


class Sandbox(BaseModel):
    """One isolated place that runs one attempt's commands. Never used twice.

    One that waits warm is nobody's yet; the database keeps it to one attempt from then on.
    """

    organization_id = models.UUIDField(null=True)
    project_id = models.UUIDField(null=True)
    run_id = models.UUIDField(null=True)
    attempt = models.PositiveIntegerField(null=True)
    driver = models.CharField(max_length=16)
    isolation = models.CharField(max_length=16)
    image = models.CharField(max_length=200)
    profile = models.CharField(max_length=40, default="base")
    # Equal for warm sandboxes that are made alike, so that any of them will do.
    mould = models.CharField(max_length=64, blank=True, default="")
    worker = models.CharField(max_length=120)
    host = models.CharField(max_length=120, blank=True, default="")
    # The worker process that holds its line; a warm one goes when that process does.
    incarnation = models.UUIDField(null=True)
    container_id = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=16, choices=SandboxState, default=SandboxState.CREATING)
    claimed_at = models.DateTimeField(null=True)
    gone_at = models.DateTimeField(null=True)

    objects = SandboxQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "sandboxes"
        indexes = [
            models.Index(fields=["run_id"], name="sandboxes_sandbox_of_run"),
            models.Index(
                fields=["incarnation", "mould", "id"],
                condition=Q(state=SandboxState.WARM),
                name="sandboxes_sandbox_waiting",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~Q(state=SandboxState.WARM) | Q(run_id=None, organization_id=None),
                name="sandboxes_sandbox_warm_is_nobodys",
            ),
            models.CheckConstraint(
                condition=~Q(state=SandboxState.CLAIMED)
                | Q(run_id__isnull=False, organization_id__isnull=False, attempt__isnull=False),
                name="sandboxes_sandbox_claimed_is_somebodys",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.driver} {self.pk} ({self.state})"
