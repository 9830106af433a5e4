"""Children of runs that have ended or are to be cancelled: the leader ends them, generation by generation.

A trigger notes whom it concerns, in the statement that ends the parent or asks for its end (see migration
0015); those that shall go on by themselves are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from django.db import transaction

from apps.core import doorbell
from apps.runs.kin_models import ChildRun
from apps.runs.models import Run, RunLease
from apps.runs.services import acts, control, leadership, lifecycle
from apps.runs.services.leadership import Seat
from apps.runs.types import Failure, RunState

# Runs ended in one transaction, and transactions in one sweep.
_BATCH: Final = 100
_ROUNDS: Final = 40


def end(seat: Seat) -> int:
    """Cancel the children of runs that have ended or are to be cancelled; return how many."""
    ended = 0
    for _ in range(_ROUNDS):
        now = _end(seat)
        ended += now
        if not now:
            break
    return ended


@transaction.atomic
def _end(seat: Seat) -> int:
    doomed = ChildRun.objects.filter(doomed_at__isnull=False).order_by("run_id")
    keys = list(doomed.values_list("run", flat=True)[:_BATCH])
    if not keys:
        return 0
    leadership.require(seat)
    # Not one that its worker acts on, or stalls on, at this moment: see it at the next sweep.
    runs = lifecycle.lock_free(keys)
    rows = ChildRun.objects.select_related("parent").in_bulk(keys)
    waiting = [(run, _why(rows[run.pk])) for run in runs if run.state == RunState.QUEUED]
    held = [run for run in runs if run.state == RunState.RUNNING]
    if waiting:
        lifecycle.close_waiting(waiting, RunState.CANCELLED)
    if held:
        control.ask_worker(*held)
        _ask_since(held, rows)
    ChildRun.objects.filter(run__in=runs).update(doomed_at=None)
    acts.by_engine("run.cancel_children", [*(run for run, _ in waiting), *held])
    doorbell.ring_on_commit(doorbell.ENGINE)
    return len(runs)


def _ask_since(runs: Sequence[Run], rows: Mapping[int, ChildRun]) -> None:
    """Let the patience with their workers count from the moment that doomed them, not from ours."""
    for run in runs:
        RunLease.objects.filter(run=run).update(cancel_requested_at=rows[run.pk].doomed_at)


def _why(child: ChildRun) -> Failure:
    parent = child.parent
    detail = f"Its parent {parent.name} ({parent.public_id}) has ended or was cancelled."
    return Failure(code="parent_ended", detail=detail)
