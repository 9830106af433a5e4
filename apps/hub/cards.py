"""Value events as cards of the Chat Hub, and the rule that groups them.

The first event of a second is shown at once, then at most three more; the rest of that second is one
line, "N more updates grouped". Receipts, anomalies and recoveries are always shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.urls import reverse

from apps.events.models import Event
from apps.events.types import EventType, Severity
from apps.hub import advice, files
from apps.hub.templatetags.aos import face
from apps.identity.models import User
from apps.runs.models import Run

WINDOW: Final = timedelta(seconds=1)
SHOWN_PER_WINDOW: Final = 3
# A card shows the first few facts; the run page shows them all.
_FACTS_ON_CARD: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    template: str
    icon: str
    tone: str = ""
    # Shown whatever happens around it.
    urgent: bool = False


LOOKS: Final[Mapping[str, Look]] = {
    EventType.ACCEPTANCE: Look(template="acceptance", icon="circle-check", tone="ok"),
    EventType.MILESTONE: Look(template="milestone", icon="flag-3", tone="info"),
    EventType.RECEIPT: Look(template="receipt", icon="receipt", urgent=True),
    EventType.ANOMALY: Look(template="anomaly", icon="alert-triangle", tone="bad", urgent=True),
    EventType.RECOVERY_START: Look(
        template="recovery_start", icon="refresh", tone="warn", urgent=True
    ),
    EventType.RECOVERY_DONE: Look(
        template="recovery_done", icon="heartbeat", tone="teal", urgent=True
    ),
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """One event. ``run`` is missing when it has been deleted: the event still tells its story."""

    event: Event
    run: Run | None

    @cached_property
    def look(self) -> Look:
        return LOOKS[self.event.type]

    @property
    def template(self) -> str:
        return f"hub/cards/{self.look.template}.html"

    @property
    def icon(self) -> str:
        return self.look.icon

    @property
    def tone(self) -> str:
        if self.event.type == EventType.RECEIPT:
            return face(self.state).tone
        if self.event.type == EventType.ANOMALY and self.event.severity == Severity.WARNING:
            return "warn"
        return self.look.tone

    @property
    def payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.event.payload
        return payload

    @property
    def title(self) -> str:
        return str(self.payload.get("title") or self.event.get_type_display())

    @property
    def detail(self) -> str:
        return str(self.payload.get("detail") or "")

    @property
    def agent(self) -> str:
        if self.run is not None:
            return self.run.agent_version.agent.title
        return str(self.payload.get("agent") or "")

    @property
    def person(self) -> User | None:
        return self.run.submitted_by if self.run is not None else None

    @property
    def href(self) -> str:
        return reverse("run", args=[self.run.public_id]) if self.run is not None else ""

    @property
    def progress(self) -> float | None:
        share = self.payload.get("progress")
        return min(max(float(share), 0.0), 1.0) if isinstance(share, int | float) else None

    @property
    def facts(self) -> list[tuple[str, Any]]:
        return pairs(self.payload.get("facts"))[:_FACTS_ON_CARD]

    @property
    def state(self) -> str:
        return str(self.payload.get("state") or "")

    @property
    def summary(self) -> str:
        """What the run says of itself; a failure's sentence stands in its error already."""
        text = str(self.payload.get("summary") or "")
        return "" if self.error is not None and text == self.error.detail else text

    @property
    def error(self) -> advice.Explained | None:
        return advice.explain(self.payload.get("error"))

    @property
    def attempts(self) -> int:
        return int(self.payload.get("attempts") or 0)

    @property
    def duration_s(self) -> float | None:
        return self.payload.get("duration_s")

    @property
    def isolation(self) -> str:
        return str(self.payload.get("isolation") or "")

    @property
    def files(self) -> list[files.File]:
        if self.run is None:
            return []
        return [
            files.File(
                run_id=self.run.public_id,
                name=item["name"],
                size=item["size"],
                media_type=item["media_type"],
                sha256=item["sha256"],
            )
            for item in self.payload.get("artifacts") or []
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Updates that are one line until someone asks for them."""

    project_id: UUID
    run_id: UUID | None
    first: int
    last: int
    count: int
    template: str = "hub/cards/group.html"

    @property
    def href(self) -> str:
        span = {"after": self.first - 1, "until": self.last, "all": 1}
        only = {"run": self.run_id} if self.run_id else {}
        return f"{reverse('cards', args=[self.project_id])}?{urlencode(span | only)}"


def deal(events: Sequence[Event], *, to: User) -> list[Card]:
    """Cards for events of one project that ``to`` may see, with their runs in one query."""
    wanted = {event.run_id for event in events if event.run_id}
    found = Run.objects.visible_to(to).filter(public_id__in=wanted)
    runs: dict[UUID | None, Run] = {
        run.public_id: run for run in found.select_related("agent_version__agent", "submitted_by")
    }
    return [Card(event=event, run=runs.get(event.run_id)) for event in events]


def arrange(cards: Iterable[Card], *, run_id: UUID | None = None) -> list[Card | Group]:
    """Apply the grouping rule. ``run_id`` is the run the stream is narrowed to, if it is."""
    items: list[Card | Group] = []
    hidden: list[Card] = []
    opened, shown = None, 0

    def fold() -> None:
        if hidden:
            items.append(_group(hidden, run_id))
            hidden.clear()

    for card in cards:
        if card.look.urgent:
            fold()
            items.append(card)
        elif opened is None or card.event.at >= opened + WINDOW:
            fold()
            items.append(card)
            opened, shown = card.event.at, 0
        elif shown < SHOWN_PER_WINDOW:
            items.append(card)
            shown += 1
        else:
            hidden.append(card)
    fold()
    return items


def _group(hidden: Sequence[Card], run_id: UUID | None) -> Group:
    return Group(
        project_id=hidden[0].event.project_id,
        run_id=run_id,
        first=hidden[0].event.seq,
        last=hidden[-1].event.seq,
        count=len(hidden),
    )


def pairs(facts: object) -> list[tuple[str, Any]]:
    """Facts an agent told; those that are nothing (0, none, no) come last."""
    return sorted(facts.items(), key=lambda fact: not fact[1]) if isinstance(facts, dict) else []
