"""Bringing checkpoints from the database to the places outside it.

Each sink gets every checkpoint, in order and at least once. A sink that is away is tried again; what
waits for it is in the database meanwhile, and sealing goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import Max

from apps.core import clock
from apps.events import sinks
from apps.events.errors import SinkAway, SinkConflict
from apps.events.models import AuditCheckpoint, AuditSink
from apps.events.sinks.base import Checkpoint, CheckpointSink

logger = logging.getLogger(__name__)

_BATCH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a sink is. ``away_since`` is empty while it takes what it is given."""

    name: str
    waiting: int
    away_since: datetime | None
    why: str


def deliver(sink: CheckpointSink) -> bool:
    """Bring a sink what waits for it, up to a hundred checkpoints; whether it is done.

    Raises ``SinkAway``; then the standing tells since when and why.
    """
    state, _ = AuditSink.objects.get_or_create(name=sink.name)
    waiting = AuditCheckpoint.objects.filter(number__gt=state.delivered).order_by("number")
    batch = list(waiting[:_BATCH])
    for each in batch:
        _bring(sink, state, Checkpoint(number=each.number, line=each.line))
    return len(batch) < _BATCH


def _bring(sink: CheckpointSink, state: AuditSink, checkpoint: Checkpoint) -> None:
    delivered = checkpoint.number
    try:
        sink.put(checkpoint)
    except SinkAway as error:
        _note_away(state, why=str(error))
        raise
    except SinkConflict as error:
        # Somebody took checkpoints out of the database, or put one into the sink. audit_verify names
        # it; what is signed from now on must still get out.
        logger.error("audit checkpoint conflicts", extra={"error": str(error)})  # noqa: TRY400
        delivered = error.held
    if state.away_since:
        logger.info("audit checkpoints are taken again", extra={"sink": sink.name})
    # Two couriers may be at it for a moment: the number never falls.
    AuditSink.objects.filter(name=state.name, delivered__lt=delivered).update(delivered=delivered)
    AuditSink.objects.filter(name=state.name).exclude(away_since=None).update(
        away_since=None, why=""
    )
    state.away_since = None


def _note_away(state: AuditSink, *, why: str) -> None:
    if state.away_since is None or state.why != why:
        logger.warning("audit checkpoints wait", extra={"sink": state.name, "why": why})
    AuditSink.objects.filter(name=state.name).update(
        away_since=state.away_since or clock.now(), why=why[:300]
    )


def furthest() -> int:
    """The highest number that ever left the database."""
    return AuditSink.objects.aggregate(furthest=Max("delivered"))["furthest"] or 0


def delivered() -> Mapping[str, int]:
    """How far each sink was brought, by name."""
    return dict(AuditSink.objects.values_list("name", "delivered"))


def standings() -> Sequence[Standing]:
    """How far every configured sink is."""
    states = AuditSink.objects.in_bulk([sink.name for sink in sinks.configured()])
    return [_standing(sink.name, states.get(sink.name)) for sink in sinks.configured()]


def _standing(name: str, state: AuditSink | None) -> Standing:
    state = state or AuditSink(name=name)
    return Standing(
        name=name,
        waiting=AuditCheckpoint.objects.filter(number__gt=state.delivered).count(),
        away_since=state.away_since,
        why=state.why,
    )
