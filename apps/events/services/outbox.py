"""Recording value events and audit entries in the transaction of their cause."""

from __future__ import annotations

from collections.abc import Mapping

from apps.core import doorbell, memory, redaction, sql, tracing
from apps.events.models import AuditEntry, OutboxEntry
from apps.events.services import changes
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
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> AuditEntry:
    """Record who did what, in the same transaction: no act without its entry.

    ``before`` and ``after`` are the changed row's fields (``changes.of``); their difference is kept
    under ``changes``. Secrets are hidden in all of it.
    """
    sql.require_transaction("outbox.audit")
    memory.forget()
    told = {name: redaction.value(name, given) for name, given in (detail or {}).items()}
    if changed := changes.between(before, after):
        told["changes"] = changed
    return AuditEntry.objects.create(
        organization_id=by.organization_id,
        actor_kind=by.kind,
        actor_id=by.id,
        actor_name=by.name,
        token_id=by.token_id,
        agent_id=by.agent_id,
        run_id=by.run_id,
        action=action,
        resource_type=resource_type,
        resource_id=str(resource_id),
        detail=told,
        trace_id=tracing.current_trace_id(),
    )
