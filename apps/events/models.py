"""The record of what happened. Rows point at their subjects by value, never by foreign key:
a record must outlive what it describes."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from apps.core.models import uuid7
from apps.events.types import ONE_RECEIPT, EventType, Severity


class _Fact(models.Model):
    """What the outbox and the log both say of one value event."""

    event_id = models.UUIDField(default=uuid7)
    organization_id = models.UUIDField()
    project_id = models.UUIDField()
    run_id = models.UUIDField(null=True)
    trace_id = models.CharField(max_length=32)
    type = models.CharField(max_length=32, choices=EventType)
    severity = models.CharField(max_length=8, choices=Severity, default=Severity.INFO)
    payload = models.JSONField(default=dict)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        abstract = True


class OutboxEntry(_Fact):
    """A value event on its way: written with its cause, moved to the log by the engine's relay.

    The id orders what one writer wrote; it is not a cursor, because rows commit out of order.
    """

    class Meta:
        verbose_name_plural = "outbox entries"
        constraints = [
            models.UniqueConstraint(
                name="events_outbox_one_receipt_per_run",
                fields=["run_id"],
                condition=Q(type=EventType.RECEIPT),
            )
        ]

    def __str__(self) -> str:
        return f"{self.type} (waiting)"


class Stream(models.Model):
    """The last number given out in one project's log."""

    project_id = models.UUIDField(primary_key=True)
    last_seq = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.project_id} at {self.last_seq}"


class EventQuerySet(models.QuerySet["Event"]):
    def after(self, seq: int, *, project_id: UUID) -> EventQuerySet:
        """One project's events behind a cursor, in order."""
        return self.filter(project_id=project_id, seq__gt=seq).order_by("seq")


class Event(_Fact):
    """A value event in its project's log: append-only, numbered without gaps from 1."""

    seq = models.BigIntegerField()

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                name="events_event_one_seq_per_project", fields=["project_id", "seq"]
            ),
            models.UniqueConstraint(name="events_event_moved_once", fields=["event_id"]),
            models.UniqueConstraint(
                name=ONE_RECEIPT, fields=["run_id"], condition=Q(type=EventType.RECEIPT)
            ),
        ]
        indexes = [models.Index(fields=["run_id", "seq"], name="events_event_of_run")]

    def __str__(self) -> str:
        return f"{self.type} {self.seq}"


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    def visible_to(self, organization_id: UUID) -> AuditEntryQuerySet:
        """One organization's entries: nobody reads another's."""
        return self.filter(organization_id=organization_id)


class AuditEntry(models.Model):
    """Who did what to which resource. Written in the transaction of the act, never changed."""

    organization_id = models.UUIDField()
    actor_kind = models.CharField(max_length=16)
    actor_id = models.UUIDField(null=True)
    actor_name = models.CharField(max_length=150)
    token_id = models.UUIDField(null=True)
    # Set when a run acted for the person: which agent, and which run of it.
    agent_id = models.UUIDField(null=True)
    run_id = models.UUIDField(null=True)
    action = models.CharField(max_length=64)
    resource_type = models.CharField(max_length=64)
    resource_id = models.CharField(max_length=64)
    detail = models.JSONField(default=dict)
    trace_id = models.CharField(max_length=32, blank=True)
    at = models.DateTimeField(db_default=Now())

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["organization_id", "-at"], name="events_audit_by_time"),
            models.Index(fields=["resource_type", "resource_id"], name="events_audit_of_resource"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.action} {self.resource_type} {self.resource_id}"


class AuditInbox(models.Model):
    """Audit entries that wait for their place in the chain. A trigger adds them, the sealer takes them.

    The chain is not extended by the acting transaction itself: that would make every act of an
    organization wait for the one before it.
    """

    entry = models.OneToOneField(
        AuditEntry, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )

    def __str__(self) -> str:
        return f"unsealed {self.entry_id}"


class AuditSeal(models.Model):
    """An audit entry's place in its organization's chain, and the hash that covers all before it.

    The entry is named by value: a seal whose entry is gone is evidence, and must be storable. It has no
    other column: what is not hashed could be changed unseen.
    """

    entry_id = models.BigIntegerField(primary_key=True)
    organization_id = models.UUIDField()
    seq = models.BigIntegerField()
    hash = models.BinaryField(max_length=32)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="events_auditseal_one_seq_each", fields=["organization_id", "seq"]
            )
        ]

    def __str__(self) -> str:
        return f"seal {self.seq} of {self.organization_id}"


class AuditCheckpoint(models.Model):
    """A signed checkpoint, word for word. The copies that count lie outside the database."""

    number = models.BigIntegerField(primary_key=True)
    line = models.TextField()

    def __str__(self) -> str:
        return f"checkpoint {self.number}"

    @property
    def body(self) -> dict[str, Any]:
        """What was signed. Believe ``checkpoints.examine``, not this."""
        body: dict[str, Any] = json.loads(self.line)["body"]
        return body


class AuditSink(models.Model):
    """How far a place outside the database is with the checkpoints."""

    name = models.CharField(primary_key=True, max_length=300)
    delivered = models.BigIntegerField(default=0)
    away_since = models.DateTimeField(null=True)
    why = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return f"{self.name} at {self.delivered}"
