"""Many runs at once: submitted in one transaction, and acted on batch by batch by the leader."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from apps.core import clock
from apps.events.models import AuditEntry, OutboxEntry
from apps.events.types import EventType
from apps.identity.models import Binding
from apps.runs.errors import BulkIsOver, NothingMatches
from apps.runs.models import BulkAct, ReadyRun, Run, RunLease
from apps.runs.services import bulk, dispatch, leadership, lifecycle, submission
from apps.runs.services.leadership import SeatLost
from apps.runs.types import (
    BULK_TRANSITIONS,
    BulkState,
    BulkVerb,
    Failure,
    RunFilter,
    RunState,
    TaskSpec,
)
from tests.factories import (
    make_agent,
    make_bulk_act,
    make_project,
    make_run,
    unwatched,
)
from tests.support.stand_in import StandIn

pytestmark = pytest.mark.django_db
NEVER = Failure(code="cancelled", detail="The run was cancelled before it started.")


def _submit(scene, number):
    return submission.submit_many(**scene, tasks=[TaskSpec(input={})] * number)


def _finish_act(seat, act, **more):
    while bulk.advance(seat, **more):
        pass
    act.refresh_from_db()
    return act


def _cancel_all(scene, **more):
    return make_bulk_act(by=scene["by"], project=scene["project"], **more)


# --- cancelling -----------------------------------------------------------------------------------


def test_waiting_runs_end_and_running_ones_are_told_to(seat, scene):
    runs = _submit(scene, 5)
    StandIn(runs[0])
    act = _finish_act(seat, _cancel_all(scene))

    assert (act.state, act.done, act.refused) == (BulkState.DONE, 5, 0)
    assert Run.objects.filter(state=RunState.CANCELLED).count() == 4
    assert Run.objects.get(pk=runs[0].pk).state == RunState.CANCELLING
    assert RunLease.objects.get().cancel_requested_at
    assert not ReadyRun.objects.exists()
    receipts = OutboxEntry.objects.filter(type=EventType.RECEIPT)
    assert receipts.count() == 4


def test_every_batch_has_its_entry_with_the_runs_in_it(seat, scene):
    _submit(scene, 5)
    act = _finish_act(seat, _cancel_all(scene), batch=2)

    entries = AuditEntry.objects.filter(action="run.cancel_many", resource_id=str(act.pk))
    assert [entry.detail["count"] for entry in entries.order_by("id")] == [2, 2, 1]
    assert {entry.actor_id for entry in entries} == {scene["by"].user.pk}
    assert AuditEntry.objects.get(action="run.bulk").detail["count"] == 5


def test_a_run_that_came_after_the_preview_is_left_alone(seat, scene):
    _submit(scene, 3)
    wanted = RunFilter(project_id=scene["project"].pk)
    seen = bulk.preview(by=scene["by"], verb=BulkVerb.CANCEL, wanted=wanted)
    (late,) = _submit(scene, 1)
    act = _finish_act(seat, _cancel_all(scene, upto=seen["upto"]))

    assert seen["count"] == act.matched == act.done == 3
    assert Run.objects.get(pk=late.pk).state == RunState.QUEUED


def test_a_run_that_comes_while_the_act_is_at_work_is_left_alone(seat, scene):
    _submit(scene, 3)
    act = _cancel_all(scene)
    bulk.advance(seat, batch=2)
    (late,) = _submit(scene, 1)
    _finish_act(seat, act)

    assert Run.objects.get(pk=late.pk).state == RunState.QUEUED


def test_a_canary_stops_after_the_oldest_few_until_somebody_says_go_on(seat, scene):
    runs = _submit(scene, 6)
    act = _finish_act(seat, _cancel_all(scene, canary=2), batch=5)
    assert act.state == BulkState.TRIED
    assert [run.pk for run in Run.objects.filter(state=RunState.CANCELLED).order_by("pk")] == [
        run.pk for run in runs[:2]
    ]

    bulk.proceed(by=scene["by"], act=act)
    assert _finish_act(seat, act).state == BulkState.DONE
    assert act.done == 6


def test_what_is_stopped_leaves_the_rest_as_it_is(seat, scene):
    _submit(scene, 4)
    act = _finish_act(seat, _cancel_all(scene, canary=1))
    bulk.stop(by=scene["by"], act=act)

    assert _finish_act(seat, act).state == BulkState.STOPPED
    assert Run.objects.filter(state=RunState.QUEUED).count() == 3
    with pytest.raises(BulkIsOver):
        bulk.proceed(by=scene["by"], act=act)


def test_it_acts_as_its_person_and_stops_when_that_person_may_no_longer(seat, scene):
    _submit(scene, 4)
    act = _cancel_all(scene)
    bulk.advance(seat, batch=1)
    with unwatched():
        Binding.objects.filter(user=scene["by"].user).delete()
    act = _finish_act(seat, act)

    assert act.state == BulkState.STOPPED
    assert "may no longer" in act.stop_reason
    assert Run.objects.filter(state=RunState.QUEUED).count() == 3


def test_an_act_over_a_project_touches_no_other(seat, scene):
    other = make_run(project=make_project(organization=scene["project"].organization))
    _submit(scene, 2)
    _finish_act(seat, _cancel_all(scene))

    assert Run.objects.get(pk=other.pk).state == RunState.QUEUED


def test_nothing_is_asked_for_when_nothing_matches(scene):
    with pytest.raises(NothingMatches):
        _cancel_all(scene)


def test_an_engine_that_lost_its_seat_does_nothing(seat, scene):
    _submit(scene, 2)
    _cancel_all(scene)
    leadership.leave(seat)
    leadership.take("other")

    with pytest.raises(SeatLost):
        bulk.advance(seat)
    assert Run.objects.filter(state=RunState.QUEUED).count() == 2


def test_a_batch_that_breaks_leaves_no_trace_and_is_done_again(seat, scene, monkeypatch):
    """Where the act stands is written with what was done: a crash in between cannot part the two."""
    _submit(scene, 3)
    act = _cancel_all(scene)
    note = bulk._note

    def broken(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr(bulk, "_note", broken)
    with pytest.raises(RuntimeError):
        bulk.advance(seat)
    assert Run.objects.filter(state=RunState.QUEUED).count() == 3
    assert OutboxEntry.objects.filter(type=EventType.RECEIPT).count() == 0

    monkeypatch.setattr(bulk, "_note", note)
    assert _finish_act(seat, act).done == 3


# --- running again --------------------------------------------------------------------------------


def test_ended_runs_are_run_again_as_new_ones(seat, scene):
    runs = _submit(scene, 3)
    for run in runs[:2]:
        StandIn(run).succeed("Done.")
    act = make_bulk_act(by=scene["by"], verb=BulkVerb.RERUN, project=scene["project"])
    act = _finish_act(seat, act)

    again = Run.objects.filter(rerun_of__isnull=False).order_by("pk")
    assert [run.rerun_of_id for run in again] == [run.pk for run in runs[:2]]
    assert act.done == act.matched == 2
    assert set(again.values_list("state", flat=True)) == {RunState.QUEUED}
    entry = AuditEntry.objects.get(action="run.rerun_many")
    assert entry.detail["runs"] == [str(run.public_id) for run in again]


def test_a_run_that_cannot_be_run_again_is_named_and_stops_nobody(seat, scene):
    with unwatched():
        old = make_agent(organization=scene["project"].organization)
    first = make_run(by=scene["by"], project=scene["project"], agent=old)
    (second,) = _submit(scene, 1)
    for run in (first, second):
        StandIn(run).succeed("Done.")
    with unwatched():
        old.current = None
        old.save(update_fields=["current"])
    act = make_bulk_act(by=scene["by"], verb=BulkVerb.RERUN, project=scene["project"])
    act = _finish_act(seat, act)

    assert (act.done, act.refused) == (1, 1)
    assert act.refusals[0]["run"] == str(first.public_id)
    assert "no released version" in act.refusals[0]["reason"]


# --- the database ---------------------------------------------------------------------------------


STEPS = [(old, new) for old in BulkState for new in BulkState if old != new]


@pytest.mark.parametrize(("old", "new"), STEPS, ids=[f"{old}-{new}" for old, new in STEPS])
def test_the_database_allows_the_steps_of_the_table_and_no_other(scene, old, new):
    act = _laid_out(scene, old)
    if new in BULK_TRANSITIONS.get(old, ()):
        _set(act, new)
        assert BulkAct.objects.get(pk=act.pk).state == new
        return
    with pytest.raises(IntegrityError, match="cannot go from"), transaction.atomic():
        _set(act, new)


def _is_over(state):
    return state in {BulkState.DONE, BulkState.STOPPED}


@unwatched()
def _laid_out(scene, state):
    return BulkAct.objects.create(
        organization_id=scene["project"].organization_id,
        asked_by=scene["by"].user,
        verb=BulkVerb.CANCEL,
        wanted={},
        state=state,
        matched=1,
        upto=1,
        finished_at=clock.now() if _is_over(state) else None,
    )


def _set(act, state):
    finished_at = clock.now() if _is_over(state) else None
    BulkAct.objects.filter(pk=act.pk).update(state=state, finished_at=finished_at)


def test_without_the_newest_run_as_its_bound_an_act_would_eat_what_comes_later(seat, scene):
    """Sabotage: the bound is what keeps later runs out."""
    _submit(scene, 1)
    act = _cancel_all(scene)
    (late,) = _submit(scene, 1)
    with unwatched():
        BulkAct.objects.filter(pk=act.pk).update(upto=2**62)
    _finish_act(seat, act)

    assert Run.objects.get(pk=late.pk).state == RunState.CANCELLED


def test_many_waiting_runs_are_closed_in_one_statement(scene, django_assert_max_num_queries):
    runs = _submit(scene, 50)
    with transaction.atomic():
        locked = lifecycle.lock_many([run.pk for run in runs])
        with django_assert_max_num_queries(6):
            lifecycle.close_waiting([(run, NEVER) for run in locked], RunState.CANCELLED)
    assert dispatch.look().has_ready is False
    assert Run.objects.filter(state=RunState.CANCELLED).count() == 50
