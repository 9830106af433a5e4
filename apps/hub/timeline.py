"""The story of one run as steps: asked, attempts, milestones, trouble, end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from apps.events.models import Event
from apps.events.types import EventType
from apps.hub.cards import LOOKS, Card, pairs
from apps.hub.templatetags.aos import face, plain, words
from apps.runs.models import Attempt, Run
from apps.runs.types import RunState

_NOTE_FACTS: Final = 3
# How an attempt's end looks; one that succeeded needs no step of its own.
_ENDS: Final = {
    "lost": ("Attempt {n}: its worker disappeared", "warn", "plug-connected-x"),
    "drained": ("Attempt {n}: given back by its worker", "", "arrow-back-up"),
    RunState.FAILED: ("Attempt {n} failed", "warn", "circle-x"),
    RunState.EXPIRED: ("Attempt {n} ran out of time", "warn", "hourglass-off"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    title: str
    icon: str
    note: str = ""
    tone: str = ""
    turns: bool = False
    at: datetime | None = None
    offset_s: float | None = None


def tell(run: Run, *, attempts: Sequence[Attempt], events: Sequence[Event]) -> list[Step]:
    """Everything that happened, oldest first, and at last what the run is doing or how it ended."""
    steps = [_asked(run)]
    for attempt in attempts:
        steps += _attempt_steps(run, attempt)
    steps += [_event_step(run, event) for event in events if event.type in _TOLD]
    steps.sort(key=lambda step: step.at or run.created_at)
    return [*steps, _last(run)]


def progress(run: Run, *, attempts: Sequence[Attempt], events: Sequence[Event]) -> float | None:
    """How far the newest attempt says it is; ``None`` when it has not said."""
    if run.state == RunState.SUCCEEDED:
        return 1.0
    began = attempts[-1].started_at if attempts else run.created_at
    told = [
        share
        for event in events
        if event.type == EventType.MILESTONE and event.at >= began
        if (share := Card(event=event, run=run).progress) is not None
    ]
    return told[-1] if told else None


_TOLD: Final = frozenset(LOOKS) - {EventType.ACCEPTANCE, EventType.RECEIPT}


def _asked(run: Run) -> Step:
    who = run.submitted_by.get_full_name() or run.submitted_by.username
    return Step(
        title="Accepted",
        icon="check",
        tone="ok",
        note=f"asked by {who}",
        at=run.created_at,
        offset_s=None,
    )


def _attempt_steps(run: Run, attempt: Attempt) -> list[Step]:
    steps = [
        Step(
            title="Started" if attempt.number == 1 else f"Attempt {attempt.number} started",
            icon="player-play",
            tone="info",
            note=f"on {attempt.worker_name}",
            at=attempt.started_at,
            offset_s=_offset(run, attempt.started_at),
        )
    ]
    # The end of the last attempt is the run's own end, told below.
    over = attempt.finished_at is not None and not (run.is_over and attempt.number == run.attempts)
    if over and attempt.outcome in _ENDS:
        title, tone, icon = _ENDS[attempt.outcome]
        steps.append(
            Step(
                title=title.format(n=attempt.number),
                icon=icon,
                tone=tone,
                note=str((attempt.error or {}).get("detail", "")),
                at=attempt.finished_at,
                offset_s=_offset(run, attempt.finished_at),
            )
        )
    return steps


def _event_step(run: Run, event: Event) -> Step:
    card = Card(event=event, run=run)
    facts = ", ".join(
        f"{words(name).lower()} {plain(value)}"
        for name, value in pairs(event.payload.get("facts"))[:_NOTE_FACTS]
    )
    passed = event.type == EventType.MILESTONE
    return Step(
        title=card.title,
        icon="check" if passed else card.icon,
        tone="ok" if passed else card.tone,
        note=facts or card.detail,
        at=event.at,
        offset_s=_offset(run, event.at),
    )


def _last(run: Run) -> Step:
    shown = face(run.shown_state)
    if run.finished_at is not None:
        return Step(
            title=shown.word,
            icon=shown.icon,
            tone=shown.tone,
            note="receipt written",
            at=run.finished_at,
            offset_s=_offset(run, run.finished_at),
        )
    return Step(title=_DOING.get(run.shown_state, shown.word), icon=shown.icon, turns=shown.turns)


_DOING: Final = {
    RunState.QUEUED: "Waiting for a worker",
    "dispatched": "Sent to a worker",
    RunState.RUNNING: "Running",
    RunState.CANCELLING: "Stopping",
}


def _offset(run: Run, moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, (moment - run.created_at).total_seconds())
