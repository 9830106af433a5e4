"""The processes: workers, and the engine that leads. They serve every organization.

A part of ``models``, which loads it.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from apps.core.models import uuid7


class WorkerNode(models.Model):
    """One incarnation of a worker process. A restart is a new row that supersedes the old one."""

    incarnation = models.UUIDField(default=uuid7, unique=True)
    name = models.CharField(max_length=120, db_index=True)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    # Of the code it runs.
    version = models.CharField(max_length=80)
    # What it says of itself, without the version.
    labels = models.JSONField(db_default={})
    # All workers with the same labels and version.
    pool = models.CharField(max_length=16, db_default="")
    slots = models.PositiveIntegerField()
    running = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField(db_default=Now())
    last_seen = models.DateTimeField(db_default=Now())
    draining = models.BooleanField(default=False)
    gone_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "runs_worker"
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class Leader(models.Model):
    """Who leads, until when, and for which time: the epoch grows with each change of hands."""

    shard = models.PositiveSmallIntegerField(primary_key=True)
    holder = models.CharField(max_length=120)
    epoch = models.BigIntegerField()
    expires_at = models.DateTimeField()
    # Grows with each change of a limit: a claim that was decided before is refused.
    rules = models.BigIntegerField(db_default=0)

    class Meta:
        db_table = "runs_leader"

    def __str__(self) -> str:
        return f"{self.holder} (epoch {self.epoch})"
