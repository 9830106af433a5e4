"""What bounds a run as a whole, however often it is tried: the moment by which it must have ended."""

from __future__ import annotations

from datetime import datetime

from django.db import models


class Bounded(models.Model):
    """The part of a run that says by when it ends."""

    run_at: datetime | None
    created_at: datetime
    # By then it has ended, whatever state it is in. Set at submission, never changed.
    total_deadline = models.DateTimeField(null=True)
    # What was asked for, until it is stored: the database counts from its own clock.
    total_deadline_s: int | None = None

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
