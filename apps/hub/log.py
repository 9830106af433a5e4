"""A run's own log as lines for people. ``static/hub/js/log.js`` says the same of lines it receives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from apps.core import walking
from apps.runs.models import Run, RunEvent
from apps.runs.types import EventKind, RunState

# A page shows the end of the log; the whole of it is a download.
SHOWN: Final = 400
_SOURCES: Final[Mapping[str, str]] = {EventKind.MESSAGE: "milestone", EventKind.TODO: "plan"}
_STARTED: Final = "started"
_LEVELS: Final = frozenset({"debug", "info", "warn", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    seq: int = 0
    kind: str = ""
    level: str = "info"
    source: str = ""
    text: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The end of a log. ``after`` is where a live reader goes on."""

    lines: list[Line]
    count: int
    after: int
    final: bool
    # What a new line is cloned from in the browser.
    blank: Line = field(default_factory=Line)

    @property
    def earlier(self) -> bool:
        return self.count > len(self.lines)


def tail(run: Run) -> Tail:
    events = list(RunEvent.objects.filter(run=run).order_by("-seq")[:SHOWN])[::-1]
    # Lines are numbered without gaps from 1: the last number is their count.
    count = events[-1].seq if events else 0
    return Tail(
        lines=[line_of(event) for event in events], count=count, after=count, final=run.is_over
    )


def plan(run: Run) -> list[dict[str, Any]]:
    """The steps the agent last said it has, each with its state."""
    newest = RunEvent.objects.filter(run=run, kind=EventKind.TODO).order_by("-seq").first()
    return list(newest.payload.get("items") or []) if newest else []


def as_text(run: Run) -> Iterator[str]:
    """The whole log, a line each, for download."""
    for event in walking.walk(RunEvent.objects.filter(run=run), "seq"):
        line = line_of(event)
        moment = event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        yield f"{moment} {line.level.upper():5} {line.source:10} {line.text}\n"


def line_of(event: RunEvent) -> Line:
    payload = event.payload
    level = str(payload.get("level", "info")).lower()
    level = {"warning": "warn", "critical": "error"}.get(level, level)
    return Line(
        seq=event.seq,
        kind=event.kind,
        level=level if level in _LEVELS else "info",
        source=str(payload.get("source") or _SOURCES.get(event.kind, event.kind)),
        text=_text(event.kind, payload),
        at=event.at,
    )


def _text(kind: str, payload: dict[str, Any]) -> str:
    if kind == EventKind.RUN:
        return _transition(payload)
    if kind == EventKind.TODO:
        items = payload.get("items") or []
        done = sum(1 for item in items if item.get("state") == "done")
        return f"{done} of {len(items)} steps done"
    return str(payload.get("text") or payload.get("title") or "")


def _transition(payload: dict[str, Any]) -> str:
    state = str(payload.get("state", ""))
    parts = [f"run {_STARTED if state == RunState.RUNNING else state}"]
    if attempt := payload.get("attempt"):
        parts.append(f"attempt {attempt}")
    if worker := payload.get("worker"):
        parts.append(f"on {worker}")
    if delay := payload.get("retry_in_s"):
        parts.append(f"next attempt in {delay} s")
    if error := payload.get("error"):
        parts.append(f"{error.get('code')}: {error.get('detail')}")
    return ", ".join(parts)
