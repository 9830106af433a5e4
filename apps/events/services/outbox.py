"""Recording value events and audit entries in the transaction of their cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apps.core import doorbell, memory, redaction, sql, tracing
from apps.events.models import AuditEntry, OutboxEntry
from apps.events.services import changes
from apps.events.types import ActorRef, EventType, Severity, Subject

# Of an audit entry, in a statement that writes some.
_COLUMNS: Final = tuple(
    field.attname for field in AuditEntry._meta.concrete_fields if field.attname not in {"id", "at"}
)


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
    entry = entry_of(
        by,
        action,
        resource_type=resource_type,
        resource_id=resource_id,
        detail=detail,
        changed=changes.between(before, after),
    )
    entry.save(force_insert=True)
    return entry


def entry_of(
    by: ActorRef,
    action: str,
    *,
    resource_type: str,
    resource_id: object,
    detail: Mapping[str, object] | None = None,
    changed: Mapping[str, object] | None = None,
) -> AuditEntry:
    """The entry for ``audit``, or for a statement of the caller's own that writes it with the act (``row_of``)."""
    sql.require_transaction("outbox.audit")
    memory.forget()
    told = {name: redaction.value(name, given) for name, given in (detail or {}).items()}
    return AuditEntry(
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
        detail=told | ({"changes": changed} if changed else {}),
        trace_id=tracing.current_trace_id(),
    )


def row_of(entry: AuditEntry) -> dict[str, object]:
    """An entry's columns, but for those that the database fills in."""
    return {column: getattr(entry, column) for column in _COLUMNS}
