"""Queues as operators see them: pausing them, and why a run waits."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from django.db import transaction

from apps.core import doorbell, sql
from apps.core.errors import NotFound
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.runs.models import Lane, Run, ScheduledRun, WaitingRun
from apps.runs.services import figures, kin, limits, pools
from apps.runs.services.figures import SQL
from apps.runs.types import Priority, RunState

# Further back than this the exact place says nothing.
_COUNTED: Final = 1000


@transaction.atomic
def set_paused(*, by: Actor, queue: str, priority: Priority, paused: bool) -> Lane:
    """Let nothing of this queue and class start, or let it start again. Twice is harmless.

    Runs are accepted meanwhile and wait; those that are executed go on. Raises ``NotFound`` for a
    queue nothing was ever submitted to.
    """
    policy.require(by, "queue.manage")
    organization_id: UUID = by.user.organization_id
    lanes = Lane.objects.filter(organization_id=organization_id, queue=queue, priority=priority)
    lane = lanes.select_for_update(no_key=True).first()
    if lane is None:
        raise NotFound(what="queue", ref=f"{queue}/{priority.label}")
    if lane.paused == paused:
        return lane
    lane.paused = paused
    lane.save(update_fields=["paused"])
    outbox.audit(
        by.ref,
        "queue.pause" if paused else "queue.resume",
        resource_type="queue",
        resource_id=f"{queue}/{priority.label}",
        before={"paused": not paused},
        after={"paused": paused},
    )
    doorbell.ring_on_commit(doorbell.ENGINE)
    return lane


def why_waiting(run: Run) -> str:
    """Why a queued run does not start now, as a sentence; empty for one that does not wait."""
    if run.state != RunState.QUEUED or hasattr(run, "lease"):
        return ""
    if told := _needs(run) or _later(run):
        return told
    rows = sql.fetch(SQL["place_in_lane"], {"run_id": run.pk, "most": _COUNTED})
    if not rows or not rows[0]["is_ready"]:
        return ""
    if rows[0]["paused"]:
        return f"The queue {run.queue}/{run.get_priority_display()} is paused."
    behind = _behind(int(rows[0]["ahead"]))
    told = limits.why_stopped(run) or _stopped() or pools.why_unserved(run) or behind
    return f"{told} {parent}" if (parent := kin.held_by_parent(run)) else told


def _needs(run: Run) -> str:
    held = WaitingRun.objects.filter(run=run).first()
    if held is None:
        return ""
    if held.verdict:
        return "A run it depends on did not succeed, so it ends without being started."
    return f"It waits for {held.open} run{'s' if held.open > 1 else ''} to end."


def _later(run: Run) -> str:
    later = ScheduledRun.objects.filter(run=run).first()
    if later is None:
        return ""
    what = "It waits before its next attempt" if run.attempts else "It was asked to start later"
    return f"{what}: {later.due_at:%Y-%m-%d %H:%M:%S} UTC."


def _stopped() -> str:
    now = figures.platform()
    if not now.leader_alive:
        return "No engine leads, so nothing starts. Start one with manage.py engine."
    if not now.workers:
        return "No worker is alive, so nothing starts. Start one with manage.py worker."
    return ""


def _behind(ahead: int) -> str:
    if not ahead:
        return "It is next in its queue, as soon as a worker has a free slot."
    count = f"{ahead:,}" if ahead < _COUNTED else f"{_COUNTED:,} or more"
    return f"{count} runs of its queue are before it; all slots of the workers are taken."
