"""The moment by which a run has ended, in whatever state it is, and whoever should have ended it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from apps.core import clock
from apps.events.models import OutboxEntry
from apps.events.types import EventType
from apps.hub import advice
from apps.runs.errors import LeaseLost
from apps.runs.kin_models import RunDeadline
from apps.runs.models import (
    Attempt,
    ReadyRun,
    Run,
    RunEvent,
    RunLease,
    ScheduledRun,
    WaitingRun,
    WorkerNode,
)
from apps.runs.services import control, dispatch, leadership, leases, recovery
from apps.runs.types import Failure, Need, RunState
from tests.factories import make_agent, make_run, make_worker
from tests.support.stand_in import StandIn

pytestmark = pytest.mark.django_db
FAILED = Failure(code="command_failed", detail="No.", retryable=True)


def _pass(*runs):
    """Let their total deadlines be a second ago."""
    keys = [run.pk for run in runs]
    RunDeadline.objects.filter(run__in=keys).update(at=Now() - timedelta(seconds=1))


def _queued(scene, seat):
    return make_run(**scene, total_deadline_s=60)


def _later(scene, seat):
    run = make_run(**scene, total_deadline_s=60, run_at=clock.now() + timedelta(hours=1))
    assert ScheduledRun.objects.filter(run=run).exists()
    return run


def _held_by_a_dependency(scene, seat):
    first = make_run(**scene)
    run = make_run(**scene, total_deadline_s=60, depends_on=(Need(run=first.public_id),))
    assert WaitingRun.objects.filter(run=run).exists()
    return run


def _parked(scene, seat):
    make_run(**scene, concurrency_key="one")
    run = make_run(**scene, total_deadline_s=60, concurrency_key="one")
    dispatch.claim(seat, slots=5)
    assert ReadyRun.objects.get(run=run).gate is not None
    return run


def _dispatched(scene, seat):
    run = make_run(**scene, total_deadline_s=60)
    dispatch.claim(seat, slots=5)
    return run


def _running(scene, seat):
    run = make_run(**scene, total_deadline_s=60)
    StandIn(run)
    return run


def _running_with_a_dead_worker(scene, seat):
    run = make_run(**scene, total_deadline_s=60)
    (claimed,) = dispatch.claim(seat, slots=5)
    worker = make_worker()
    leases.start(run_id=run.pk, token=claimed.token, worker=worker)
    WorkerNode.objects.update(last_seen=Now() - timedelta(days=1))
    return run


def _waiting_to_be_retried(scene, seat):
    run = make_run(**scene, total_deadline_s=60, retry={"base_s": 600.0, "max_s": 600.0})
    leases.fail(StandIn(run).started, FAILED)
    assert ScheduledRun.objects.filter(run=run).exists()
    return run


STATES = [
    _queued,
    _later,
    _held_by_a_dependency,
    _parked,
    _dispatched,
    _running,
    _running_with_a_dead_worker,
    _waiting_to_be_retried,
]


@pytest.mark.parametrize("made", STATES, ids=lambda made: made.__name__.strip("_"))
def test_it_ends_a_run_in_every_state_with_one_receipt_that_says_why(scene, seat, made):
    run = made(scene, seat)
    assert recovery.expire_overdue(seat) == 0
    assert not Run.objects.get(pk=run.pk).is_over
    _pass(run)

    assert recovery.expire_overdue(seat) == 1

    run.refresh_from_db()
    assert run.state == RunState.EXPIRED
    assert run.error["code"] == "total_deadline_passed"
    assert advice.explain(run.error).title == "It did not end in time"
    for table in (RunLease, ReadyRun, ScheduledRun, WaitingRun, RunDeadline):
        assert not table.objects.filter(run=run).exists()
    assert not Attempt.objects.filter(run=run, finished_at=None).exists()
    receipts = OutboxEntry.objects.filter(run_id=run.public_id, type=EventType.RECEIPT)
    assert [each.payload["error"]["code"] for each in receipts] == ["total_deadline_passed"]
    last = RunEvent.objects.filter(run=run).latest("seq")
    assert last.payload["error"]["code"] == "total_deadline_passed"
    assert run.letter.code == "total_deadline_passed"
    assert recovery.expire_overdue(seat) == 0


def test_whoever_worked_on_it_cannot_end_it_any_more(scene, seat):
    worker = StandIn(make_run(**scene, total_deadline_s=60))
    _pass(Run.objects.get())
    recovery.expire_overdue(seat)

    with pytest.raises(LeaseLost):
        worker.succeed()
    with pytest.raises(LeaseLost):
        worker.fail("command_failed", "No.", retryable=True)


def test_what_somebody_was_cancelling_ends_cancelled(scene, seat):
    run = make_run(**scene, total_deadline_s=60)
    StandIn(run)
    control.cancel(by=scene["by"], run=run)
    _pass(run)

    recovery.expire_overdue(seat)

    assert Run.objects.get().state == RunState.CANCELLED


def test_without_the_leaders_part_nobody_ends_it(scene, seat):
    """The other sweeps do not do it by the way: what the tests above see is this one's doing."""
    run = make_run(**scene, total_deadline_s=60)
    _pass(run)

    recovery.expire_queued(seat)
    recovery.reclaim(seat, trust_silence=True)

    assert Run.objects.get(pk=run.pk).state == RunState.QUEUED


def test_a_leader_that_was_deposed_ends_nothing(scene, seat):
    run = make_run(**scene, total_deadline_s=60)
    _pass(run)
    leadership.leave(seat)
    leadership.take("successor")

    with pytest.raises(leadership.SeatLost):
        recovery.expire_overdue(seat)
    assert Run.objects.get(pk=run.pk).state == RunState.QUEUED


def test_more_than_one_batch_ends_in_one_sweep(scene, seat, monkeypatch):
    monkeypatch.setattr(recovery, "_BATCH", 2)
    _pass(*(make_run(**scene, total_deadline_s=60) for _ in range(5)))

    assert recovery.expire_overdue(seat) == 5


def test_it_is_counted_by_the_database_from_the_submission(scene):
    run = make_run(**scene, total_deadline_s=3600)

    run.refresh_from_db()
    assert (run.total_deadline - run.created_at) == pytest.approx(
        timedelta(hours=1), abs=timedelta(seconds=1)
    )
    assert RunDeadline.objects.get(run=run).at == run.total_deadline


def test_an_asked_for_start_comes_first(scene):
    start = clock.now() + timedelta(days=1)
    run = make_run(**scene, total_deadline_s=60, run_at=start)

    assert run.total_deadline == start + timedelta(seconds=60)


def test_the_agent_says_how_long_where_the_task_does_not(scene, settings):
    settings.AOS_TOTAL_DEADLINE = timedelta(seconds=900)
    spec = {"entry": "main.py", "files": {"main.py": ""}, "total_deadline_s": 120}
    slow = make_agent(organization=scene["project"].organization, spec=spec)

    assert make_run(**scene | {"agent": slow}, total_deadline_s=30).total_s == 30
    assert make_run(**scene | {"agent": slow}).total_s == 120
    assert make_run(**scene).total_s == 900


def test_without_any_of_them_there_is_none(scene):
    run = make_run(**scene)

    assert run.total_deadline is None
    assert not RunDeadline.objects.exists()


def test_running_it_again_gives_it_as_long_again(scene):
    run = make_run(**scene, total_deadline_s=600)

    again = control.rerun(by=scene["by"], run=run).run

    assert again.total_s == 600
    assert again.total_deadline > run.total_deadline


def test_nobody_changes_it_later(scene):
    run = make_run(**scene, total_deadline_s=600)

    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        Run.objects.filter(pk=run.pk).update(total_deadline=None)


def test_what_ends_in_time_is_forgotten(scene, seat):
    run = make_run(**scene, total_deadline_s=600)
    StandIn(run).succeed()

    assert not RunDeadline.objects.exists()
    assert Run.objects.get(pk=run.pk).state == RunState.SUCCEEDED
