"""Reading a run's own log."""

from __future__ import annotations

from apps.runs.models import Run, RunEvent


def page(run: Run, *, after: int, limit: int) -> list[RunEvent]:
    """The lines behind ``after``, in order, at most ``limit``."""
    return list(RunEvent.objects.filter(run=run, seq__gt=after).order_by("seq")[:limit])
