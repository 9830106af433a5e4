"""Recording value events and audit entries in the transaction of their cause."""

from __future__ import annotations

from collections.abc import Mapping

from apps.core import doorbell, sql, tracing
from apps.events.models import AuditEntry, OutboxEntry
from apps.events.types import ActorRef, EventType, Severity, Subject


def emit(
    event: EventType,
    *,
    subject: Subject,
    payload: Mapping[str, object],
    severity: Severity = Severity.INFO,
) -> OutboxEntry:
    """Record a value event, so that it exists exactly when its cause does.

    Raises ``OutsideTransaction`` when no transaction is open: there would be no cause to share.
    """
    sql.require_transaction("outbox.emit")
    entry = OutboxEntry.objects.create(
        type=event,
        severity=severity,
        organization_id=subject.organization_id,
        project_id=subject.project_id,
        run_id=subject.run_id,
        trace_id=subject.trace_id,
        payload=dict(payload),
    )
    doorbell.ring_on_commit(doorbell.ENGINE)
    return entry


def audit(
    by: ActorRef,
    action: str,
    *,
    resource_type: str,
    resource_id: object,
    detail: Mapping[str, object] | None = None,
) -> AuditEntry:
    """Record who did what, in the same transaction: no act without its entry."""
    sql.require_transaction("outbox.audit")
    return AuditEntry.objects.create(
        organization_id=by.organization_id,
        actor_kind=by.kind,
        actor_id=by.id,
        actor_name=by.name,
        token_id=by.token_id,
        action=action,
        resource_type=resource_type,
        resource_id=str(resource_id),
        detail=dict(detail or {}),
        trace_id=tracing.current_trace_id(),
    )
