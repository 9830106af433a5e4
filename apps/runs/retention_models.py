"""How long an organization keeps its runs once they have ended. A part of ``models``, which loads it."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel
from apps.identity.models import User

LONGEST_DAYS = 36_500


class RetentionQuerySet(models.QuerySet["Retention"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(organization_id=user.organization_id)


class Retention(BaseModel):
    """An organization's own decision; without one the platform's holds (``AOS_RUN_DAYS``)."""

    organization_id = models.UUIDField(unique=True)
    # So many days after its end a run may be removed; 0 keeps all.
    run_days = models.PositiveIntegerField()

    objects = RetentionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="runs_retention_within_a_century", condition=Q(run_days__lte=LONGEST_DAYS)
            )
        ]

    def __str__(self) -> str:
        return f"{self.run_days} days" if self.run_days else "for ever"
