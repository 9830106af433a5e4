"""Who holds which sandbox. The drivers run in the machine room; here is only their record."""

from __future__ import annotations

from typing import Self

from django.db import models

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
    """One isolated place that runs one attempt's commands. Never used twice."""

    organization_id = models.UUIDField()
    project_id = models.UUIDField()
    run_id = models.UUIDField()
    attempt = models.PositiveIntegerField()
    driver = models.CharField(max_length=16)
    isolation = models.CharField(max_length=16)
    image = models.CharField(max_length=200)
    worker = models.CharField(max_length=120)
    container_id = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=16, choices=SandboxState, default=SandboxState.CREATING)
    gone_at = models.DateTimeField(null=True)

    objects = SandboxQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "sandboxes"
        indexes = [models.Index(fields=["run_id"], name="sandboxes_sandbox_of_run")]

    def __str__(self) -> str:
        return f"{self.driver} {self.pk} ({self.state})"
