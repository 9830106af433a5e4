"""A run's own log as the live feed follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import Max

from apps.core import tenancy
from apps.events import hints, wire
from apps.events.feed import Frame, Page
from apps.runs.models import Run, RunEvent
from apps.runs.services import journal


def as_json(event: RunEvent) -> dict[str, Any]:
    """A line of the log as every wire carries it."""
    return {
        "seq": event.seq,
        "kind": event.kind,
        "payload": event.payload,
        "at": event.at.isoformat().replace("+00:00", "Z"),
    }


@dataclass(frozen=True, slots=True)
class RunLog:
    """Closed once the run is over and its last line was read."""

    run_id: int
    public_id: UUID
    organization_id: UUID
    # There is no other place to fetch a run's log from, so a reader is never sent away.
    far: ClassVar[int] = 2**31

    @property
    def topic(self) -> str:
        return hints.run_topic(self.public_id)

    def head(self) -> int:
        with tenancy.organization(self.organization_id):
            last = RunEvent.objects.filter(run_id=self.run_id).aggregate(last=Max("seq"))["last"]
        return last or 0

    def read(self, after: int, limit: int) -> Page:
        with tenancy.organization(self.organization_id):
            # The state first: the last line is written with it, so what is then read is all of it.
            run = Run.objects.only("state").get(pk=self.run_id)
            events = journal.page(run, after=after, limit=limit)
        return Page(
            frames=[
                Frame(seq=event.seq, type=event.kind, text=wire.as_text(as_json(event)))
                for event in events
            ],
            closed=run.is_over and len(events) < limit,
        )
