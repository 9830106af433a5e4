"""What bounds a run as a whole, however often it is tried, and the runs that it has started."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from apps.runs.types import OnParentEnd


class Bounded(models.Model):
    """The part of a run that says by when it ends."""

    run_at: datetime | None
    created_at: datetime
    # By then it has ended, whatever state it is in. Set at submission, never changed.
    total_deadline = models.DateTimeField(null=True)
    # What was asked for, until it is stored: the database counts from its own clock.
    total_deadline_s: int | None = None
    # What bounds that in turn: the total deadline of the parent.
    latest_end: datetime | None = None
    # What it is granted, together with all that will descend from it.
    budget_s: int | None = None
    # Has a parent, children or a share of a budget: triggers set it and look no further where it is false.
    kin = models.BooleanField(db_default=False)

    class Meta:
        abstract = True

    @property
    def total_s(self) -> int | None:
        """How long it was given in all, from its submission or the later start it was asked for."""
        if self.total_deadline is None:
            return None
        began = max(self.run_at or self.created_at, self.created_at)
        return max(1, round((self.total_deadline - began).total_seconds()))


class RunDeadline(models.Model):
    """The total deadline of a run that is open: so that the engine searches these alone.

    Triggers write it with the run and remove it with the run's end.
    """

    run = models.OneToOneField(
        "runs.Run", on_delete=models.CASCADE, primary_key=True, related_name="must_end"
    )
    at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "runs_deadline"

    def __str__(self) -> str:
        return f"{self.run_id} ends by {self.at}"


class ChildRun(models.Model):
    """What a run is to the run that started it. Triggers refuse whatever would not be a tree."""

    run = models.OneToOneField(
        "runs.Run", on_delete=models.CASCADE, primary_key=True, related_name="child_of"
    )
    parent = models.ForeignKey("runs.Run", on_delete=models.CASCADE, related_name="children")
    # The one run of the tree that has no parent.
    root = models.ForeignKey("runs.Run", on_delete=models.CASCADE, related_name="descendants")
    # 1 for a child of the root.
    depth = models.PositiveSmallIntegerField()
    # The parent's own name for it: attempts that ask again get the same child. Empty is none.
    key = models.CharField(max_length=200, blank=True, db_default="")
    # What was asked for under the key.
    fingerprint = models.CharField(max_length=64, blank=True, db_default="")
    on_parent_end = models.CharField(max_length=8, choices=OnParentEnd)
    # Since when it must end because its parent has, or is to be cancelled; the leader sees to it.
    doomed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "runs_child"
        ordering = ["run_id"]
        constraints = [
            models.CheckConstraint(
                name="runs_child_of_an_earlier_run", condition=Q(parent__lt=F("run"))
            ),
            models.CheckConstraint(
                name="runs_child_not_too_deep", condition=Q(depth__gte=1, depth__lte=32)
            ),
            models.UniqueConstraint(
                name="runs_child_once_under_a_key", fields=["parent", "key"], condition=~Q(key="")
            ),
        ]
        indexes = [
            models.Index(
                fields=["run"], name="runs_child_doomed", condition=Q(doomed_at__isnull=False)
            )
        ]

    def __str__(self) -> str:
        return f"{self.run_id} is a child of {self.parent_id}"


class Budget(models.Model):
    """Run seconds that were granted to a run and all that descend from it."""

    run = models.OneToOneField(
        "runs.Run", on_delete=models.CASCADE, primary_key=True, related_name="budget"
    )
    granted_s = models.PositiveIntegerField()
    # What the runs of the tree hold together: what they have used, and what their next attempts may take.
    taken_s = models.DecimalField(max_digits=14, decimal_places=3)

    class Meta:
        db_table = "runs_budget"
        constraints = [
            models.CheckConstraint(
                name="runs_budget_not_exceeded",
                condition=Q(taken_s__gte=0, taken_s__lte=F("granted_s")),
            )
        ]

    def __str__(self) -> str:
        return f"{self.taken_s} of {self.granted_s} s"


class Share(models.Model):
    """What a run holds of the budget of its tree."""

    run = models.OneToOneField(
        "runs.Run", on_delete=models.CASCADE, primary_key=True, related_name="share"
    )
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="shares")
    held_s = models.DecimalField(max_digits=14, decimal_places=3)
    used_s = models.DecimalField(max_digits=14, decimal_places=3, default=0)
    # How long each attempt may take, where there is enough.
    attempt_s = models.PositiveIntegerField()

    class Meta:
        db_table = "runs_share"
        constraints = [
            models.CheckConstraint(
                name="runs_share_not_exceeded",
                condition=Q(used_s__gte=0, used_s__lte=F("held_s")),
            )
        ]

    def __str__(self) -> str:
        return f"{self.run_id} used {self.used_s} of {self.held_s} s"
