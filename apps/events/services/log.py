"""Reading a project's log."""

from __future__ import annotations

from uuid import UUID

from apps.events.models import Event


def page(*, project_id: UUID, after: int, limit: int) -> list[Event]:
    """The events behind ``after``, in order, at most ``limit``. The caller has asked who may see it."""
    return list(Event.objects.after(after, project_id=project_id)[:limit])
