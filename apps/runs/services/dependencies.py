"""Runs that wait for runs. What they wait for is named when they are submitted, and only then.

Triggers do the waking: the end of a run counts down those that wait for it, in the statement that ends
it, whoever ends it. Nothing is looked at again in between. What is left to do here is to hold back what
is submitted, and to end what cannot run any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import transaction

from apps.core.errors import AosError, Invalid
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.runs.models import Dependency, ReadyRun, Run, ScheduledRun, WaitingRun
from apps.runs.services import acts, leadership, lifecycle
from apps.runs.services.leadership import Seat
from apps.runs.types import FINAL, Failure, Need, OnFailure, RunState, TaskSpec

Needed = tuple[Run, OnFailure]
# Runs ended in one transaction, and transactions in one sweep: a long chain falls in a few sweeps.
_BATCH: Final = 100
_ROUNDS: Final = 20
_SHOWN: Final = 200
_ENDS: Final = {
    OnFailure.FAIL: (RunState.FAILED, "dependency_failed"),
    OnFailure.SKIP: (RunState.CANCELLED, "skipped"),
}


class Needs:
    """What tasks that are submitted together depend on, looked up once."""

    def __init__(self, by: Actor, tasks: Iterable[TaskSpec]) -> None:
        wanted = {need.run for task in tasks for need in task.depends_on if need.run is not None}
        runs = Run.objects.visible_to(by.user).filter(public_id__in=wanted) if wanted else ()
        self._known: dict[UUID, Run] = {run.public_id: run for run in runs}

    @property
    def keys(self) -> list[int]:
        """Of the runs that there are already."""
        return [run.pk for run in self._known.values()]

    def of(self, task: TaskSpec, earlier: Sequence[Run | AosError] = ()) -> list[Needed]:
        """The runs a task waits for; ``earlier`` are those submitted before it in the same request.

        Raises ``Invalid``. Nothing later than the task can be named, so there are no cycles.
        """
        found: list[Needed] = []
        for place, need in enumerate(task.depends_on):
            run, rule = self._find(need, earlier)
            if run is not None and any(run is other for other, _ in found):
                run, rule = None, "is named twice"
            if run is None:
                raise Invalid([{"field": f"depends_on.{place}", "rule": rule}])
            found.append((run, need.on_failure))
        return found

    def _find(self, need: Need, earlier: Sequence[Run | AosError]) -> tuple[Run | None, str]:
        if need.run is not None:
            return self._known.get(need.run), f"names no run {need.run} that you can see"
        if need.item is None or not 0 <= need.item < len(earlier):
            return None, "names no earlier item of this request"
        item = earlier[need.item]
        if isinstance(item, Run):
            return item, ""
        return None, f"names item {need.item}, which was refused"


def hold(held: Sequence[tuple[Run, Sequence[Needed]]]) -> None:
    """Keep runs that were just stored out of the queue, as long as what they need has not ended.

    The runs they need are locked first: each has ended before this, or will see it when it ends.
    """
    if not held:
        return
    needed = {on.pk for _, needs in held for on, _ in needs}
    locked = Run.objects.select_for_update(no_key=True).filter(pk__in=needed).order_by("pk")
    states = dict(locked.values_list("pk", "state"))
    Dependency.objects.bulk_create(
        Dependency(run=run, on=on, on_failure=how) for run, needs in held for on, how in needs
    )
    rows = [row for run, needs in held if (row := _waiting(run, needs, states))]
    keys = [row.run_id for row in rows]
    ReadyRun.objects.filter(run__in=keys).delete()
    ScheduledRun.objects.filter(run__in=keys).delete()
    WaitingRun.objects.bulk_create(rows)


def _waiting(run: Run, needs: Sequence[Needed], states: dict[int, str]) -> WaitingRun | None:
    still = sum(states[on.pk] not in FINAL for on, _ in needs)
    broken = [(on, how) for on, how in needs if _breaks(states[on.pk], how)]
    if not still and not broken:
        return None
    cause, verdict = broken[0] if broken else (None, "")
    return WaitingRun(
        run=run,
        organization_id=run.organization_id,
        open=still,
        due_at=run.run_at,
        queue_deadline=run.queue_deadline,
        verdict=verdict,
        cause=cause,
    )


def _breaks(state: str, how: OnFailure) -> bool:
    return state in FINAL and state != RunState.SUCCEEDED and how != OnFailure.RUN


def end_decided(seat: Seat) -> int:
    """End the runs that cannot run any more, and those that depend on them; return how many."""
    ended = 0
    for _ in range(_ROUNDS):
        now = _end_decided(seat)
        ended += now
        if now < 1:
            break
    return ended


@transaction.atomic
def _end_decided(seat: Seat) -> int:
    decided = WaitingRun.objects.exclude(verdict="").order_by("run_id")
    keys = list(decided.values_list("run", flat=True)[:_BATCH])
    if not keys:
        return 0
    leadership.require(seat)
    runs = [run for run in lifecycle.lock_many(keys) if run.state == RunState.QUEUED]
    rows = {
        row.run_id: row for row in WaitingRun.objects.filter(run__in=keys).select_related("cause")
    }
    for verdict, (state, code) in _ENDS.items():
        ends = [
            (run, _why(rows[run.pk].cause, code)) for run in runs if rows[run.pk].verdict == verdict
        ]
        if ends:
            lifecycle.close_waiting(ends, state)
    acts.by_engine("run.dependency_failed", runs)
    return len(runs)


def _why(cause: Run | None, code: str) -> Failure:
    told = f"{cause.name} ({cause.public_id}), which ended {cause.state}" if cause else "a run"
    return Failure(code=code, detail=f"It depends on {told}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A run at the other end of a dependency."""

    run: Run
    on_failure: str


def around(run: Run, *, to: User) -> dict[str, list[Link]]:
    """What a run waits for and what waits for it, as far as the person sees them."""
    seen = Run.objects.visible_to(to)
    needs = run.needs.filter(on__in=seen).select_related("on").order_by("on_id")[:_SHOWN]
    needed_by = run.needed_by.filter(run__in=seen).select_related("run").order_by("run_id")[:_SHOWN]
    return {
        "depends_on": [Link(run=each.on, on_failure=each.on_failure) for each in needs],
        "dependents": [Link(run=each.run, on_failure=each.on_failure) for each in needed_by],
    }
