from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from apps.events.models import AuditEntry, OutboxEntry
from apps.events.types import EventType
from apps.runs.errors import LeaseLost, RunIsOver
from apps.runs.fleet_models import WorkerNode
from apps.runs.models import Attempt, ReadyRun, Run, RunEvent, RunLease, ScheduledRun
from apps.runs.services import control, dispatch, fleet, leadership, leases, recovery
from apps.runs.services.leadership import SeatLost
from apps.runs.types import (
    DISPATCHED,
    FINAL,
    TRANSITIONS,
    ArtifactData,
    Entry,
    EventKind,
    Failure,
    RunState,
)
from tests.factories import make_actor, make_run, make_worker

pytestmark = pytest.mark.django_db
BROKEN = Failure(code="sandbox_unavailable", detail="No engine.", retryable=True)
WRONG = Failure(code="command_failed", detail="The command ended with exit code 3.")


def _start(seat, run, worker=None):
    """Bring a queued run to its next attempt."""
    worker = worker or make_worker()
    (claimed,) = [d for d in dispatch.claim(seat, slots=50) if d.run_id == run.pk]
    started = leases.start(run_id=run.pk, token=claimed.token, worker=worker)
    run.refresh_from_db()
    return started


def _receipts(run):
    return OutboxEntry.objects.filter(run_id=run.public_id, type=EventType.RECEIPT)


def _types(run):
    return list(
        OutboxEntry.objects.filter(run_id=run.public_id)
        .order_by("id")
        .values_list("type", flat=True)
    )


def test_a_run_goes_from_submission_to_its_one_receipt(seat):
    run = make_run()
    started = _start(seat, run)

    leases.append(
        started,
        [Entry(kind=EventKind.MESSAGE, payload={"title": "Half way", "progress": 0.5})],
        after=started.last_event_seq,
    )
    leases.succeed(
        started,
        result={"summary": "Done.", "facts": {"rows": 3}},
        artifacts=[ArtifactData(name="a.txt", sha256="0" * 64, size=3, media_type="text/plain")],
    )

    run.refresh_from_db()
    assert (run.state, run.attempts) == (RunState.SUCCEEDED, 1)
    assert _types(run) == [EventType.ACCEPTANCE, EventType.MILESTONE, EventType.RECEIPT]
    receipt = _receipts(run).get().payload
    assert receipt["summary"] == "Done."
    assert receipt["artifacts"][0]["name"] == "a.txt"
    assert receipt["duration_s"] >= 0
    assert not RunLease.objects.exists()
    seqs = list(RunEvent.objects.filter(run=run).order_by("seq").values_list("seq", flat=True))
    assert seqs == [1, 2, 3, 4]


def test_a_claimed_run_is_shown_as_dispatched(seat):
    run = make_run()

    dispatch.claim(seat, slots=1)

    assert Run.objects.select_related("lease").get(pk=run.pk).shown_state == DISPATCHED


def test_start_takes_a_token_once(seat):
    run = make_run()
    (claimed,) = dispatch.claim(seat, slots=1)
    worker = make_worker()

    first = leases.start(run_id=run.pk, token=claimed.token, worker=worker)
    second = leases.start(run_id=run.pk, token=claimed.token, worker=worker)
    forged = leases.start(run_id=run.pk, token=claimed.token + 1, worker=worker)

    assert first is not None
    assert second is None
    assert forged is None
    assert Run.objects.get(pk=run.pk).attempts == 1


def test_a_message_that_was_never_taken_up_costs_no_attempt(seat):
    run = make_run()
    (claimed,) = dispatch.claim(seat, slots=1)
    RunLease.objects.update(dispatch_deadline=Now() - timedelta(seconds=1))

    dispatch.hand_back_overdue()

    assert leases.start(run_id=run.pk, token=claimed.token, worker=make_worker()) is None
    started = _start(seat, run)
    assert (started.attempt, RunLease.objects.get().seq) == (1, 2)


@pytest.mark.parametrize(
    "act",
    [
        lambda s: leases.append(s, [Entry(kind=EventKind.LOG, payload={})], after=9),
        lambda s: leases.succeed(s, result={}),
        lambda s: leases.fail(s, WRONG),
        leases.confirm_cancelled,
        leases.give_back,
        lambda s: leases.note_isolation(s, "docker"),
    ],
    ids=["append", "succeed", "fail", "confirm_cancelled", "give_back", "note_isolation"],
)
def test_a_stale_holder_can_do_nothing(seat, act):
    run = make_run()
    dead = make_worker()
    stale = _start(seat, run, dead)
    fleet.depart(worker_id=dead.pk)
    recovery.reclaim(seat, trust_silence=False)
    fresh = _start(seat, run)
    before = OutboxEntry.objects.count()

    with pytest.raises(LeaseLost):
        act(stale)

    assert OutboxEntry.objects.count() == before
    leases.succeed(fresh, result={})
    assert _receipts(run).count() == 1


def test_a_lost_worker_is_told_of_and_the_run_goes_on(seat):
    run = make_run()
    dead = make_worker()
    _start(seat, run, dead)
    fleet.depart(worker_id=dead.pk)

    assert recovery.reclaim(seat, trust_silence=False) == 1

    leases.succeed(_start(seat, run), result={})
    assert _types(run) == [
        EventType.ACCEPTANCE,
        EventType.ANOMALY,
        EventType.RECOVERY_START,
        EventType.RECOVERY_DONE,
        EventType.RECEIPT,
    ]
    outcomes = list(Attempt.objects.filter(run=run).order_by("number").values_list("outcome"))
    assert outcomes == [("lost",), ("succeeded",)]


def test_a_silent_worker_counts_as_lost_only_when_silence_can_be_trusted(seat):
    run = make_run()
    worker = make_worker()
    _start(seat, run, worker)
    WorkerNode.objects.update(last_seen=Now() - timedelta(hours=1))

    assert recovery.reclaim(seat, trust_silence=False) == 0
    assert recovery.reclaim(seat, trust_silence=True) == 1


def test_a_restarted_worker_frees_what_its_predecessor_held(seat):
    run = make_run()
    _start(seat, run, make_worker(name="w@host"))
    make_worker(name="w@host")

    assert recovery.reclaim(seat, trust_silence=False) == 1


def test_a_storm_of_silent_workers_is_reclaimed_slowly(seat):
    for _ in range(10):
        make_run()
    worker = make_worker()
    for claimed in dispatch.claim(seat, slots=10):
        leases.start(run_id=claimed.run_id, token=claimed.token, worker=worker)
    fleet.depart(worker_id=worker.pk)

    assert recovery.reclaim(seat, trust_silence=True) == 2


def test_a_run_that_kills_three_workers_is_dead(seat):
    run = make_run(retry={"max_attempts": 10})
    for _ in range(3):
        worker = make_worker()
        _start(seat, run, worker)
        fleet.depart(worker_id=worker.pk)
        recovery.reclaim(seat, trust_silence=False)

    run.refresh_from_db()
    assert (run.state, run.error["code"]) == (RunState.DEAD, "killed_its_worker")
    assert _receipts(run).count() == 1


def test_a_retryable_failure_backs_off_and_is_tried_again(seat):
    run = make_run(retry={"base_s": 60, "jitter": 0})
    started = _start(seat, run)

    assert leases.fail(started, BROKEN) == RunState.QUEUED

    assert dispatch.promote() == 0
    ScheduledRun.objects.update(due_at=Now() - timedelta(seconds=1))
    assert dispatch.promote() == 1
    assert _start(seat, run).attempt == 2


def test_used_up_attempts_end_dead(seat):
    run = make_run(retry={"max_attempts": 1})

    assert leases.fail(_start(seat, run), BROKEN) == RunState.DEAD
    assert _receipts(run).get().payload["error"]["code"] == "sandbox_unavailable"


def test_a_failure_that_is_not_retryable_ends_failed(seat):
    assert leases.fail(_start(seat, make_run()), WRONG) == RunState.FAILED


def test_a_drained_attempt_is_not_counted(seat):
    run = make_run(retry={"max_attempts": 1, "base_s": 0, "jitter": 0})
    leases.give_back(_start(seat, run))

    started = _start(seat, run)

    assert leases.fail(started, WRONG) == RunState.FAILED
    assert run.attempts == 2


def test_a_waiting_run_is_cancelled_at_once(seat):
    run = make_run()

    control.cancel(by=make_actor(organization=run.project.organization), run=run)

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert dispatch.claim(seat, slots=5) == []
    assert _receipts(run).count() == 1
    assert AuditEntry.objects.filter(action="run.cancel").count() == 1


def test_a_dispatched_run_is_cancelled_before_it_starts(seat):
    run = make_run()
    (claimed,) = dispatch.claim(seat, slots=1)

    control.cancel(by=make_actor(organization=run.project.organization), run=run)

    assert leases.start(run_id=run.pk, token=claimed.token, worker=make_worker()) is None
    assert _receipts(run).count() == 1


def test_a_running_run_is_cancelled_through_its_worker(seat):
    run = make_run()
    worker = make_worker()
    started = _start(seat, run, worker)

    control.cancel(by=make_actor(organization=run.project.organization), run=run)

    assert fleet.beat(worker_id=worker.pk, running=1).cancelled == {started.lease}
    leases.confirm_cancelled(started)
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


def test_a_worker_that_does_not_answer_a_cancellation_loses_the_run(seat):
    run = make_run()
    started = _start(seat, run)
    control.cancel(by=make_actor(organization=run.project.organization), run=run)
    RunLease.objects.update(cancel_requested_at=Now() - timedelta(seconds=11))

    recovery.reclaim(seat, trust_silence=False)

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    with pytest.raises(LeaseLost):
        leases.succeed(started, result={})


def test_what_is_over_cannot_be_cancelled(seat):
    run = make_run()
    leases.succeed(_start(seat, run), result={})

    with pytest.raises(RunIsOver):
        control.cancel(by=make_actor(organization=run.project.organization), run=run)


def test_a_run_past_its_hard_deadline_expires(seat):
    run = make_run()
    _start(seat, run)
    RunLease.objects.update(hard_deadline=Now() - timedelta(seconds=1))

    recovery.reclaim(seat, trust_silence=False)

    run.refresh_from_db()
    assert (run.state, run.error["code"]) == (RunState.EXPIRED, "run_timed_out")


def test_a_run_that_waits_too_long_expires(seat):
    run = make_run(queue_deadline_s=60)
    ReadyRun.objects.filter(run=run).update(queue_deadline=Now() - timedelta(seconds=1))

    assert recovery.expire_queued(seat) == 1

    run.refresh_from_db()
    assert run.state == RunState.EXPIRED
    assert not ReadyRun.objects.exists()


def test_a_deposed_leader_claims_and_reclaims_nothing(seat):
    run = make_run()
    dead = make_worker()
    _start(seat, run, dead)
    fleet.depart(worker_id=dead.pk)
    make_run()
    leadership.leave(seat)
    successor = leadership.take("other")

    assert successor.epoch == seat.epoch + 1
    assert dispatch.claim(seat, slots=5) == []
    with pytest.raises(SeatLost):
        recovery.reclaim(seat, trust_silence=True)


def test_the_seat_is_taken_once(seat):
    assert leadership.take("other") is None
    assert leadership.take(seat.holder) == seat


def test_urgent_runs_go_first_and_lanes_share(seat):
    slow = make_run(priority=2)
    normal = make_run(priority=1)
    urgent = make_run(priority=0)

    order = [dispatch.claim(seat, slots=1)[0].run_id for _ in range(3)]

    assert order == [urgent.pk, normal.pk, slow.pk]


def test_one_organization_does_not_take_all_slots(seat):
    first = make_run()
    for _ in range(9):
        make_run(project=first.project)
    other = make_run()

    claimed = {item.run_id for item in dispatch.claim(seat, slots=4)}

    assert other.pk in claimed


def test_slots_are_those_of_living_workers_less_what_they_hold(seat):
    make_worker(slots=3)
    silent = make_worker(slots=50)
    WorkerNode.objects.filter(pk=silent.pk).update(last_seen=Now() - timedelta(hours=1))
    make_run()
    dispatch.claim(seat, slots=1)

    assert dispatch.look().room.now == 2


def test_the_trigger_allows_exactly_the_table_of_transitions():
    allowed = {(old, new) for old, targets in TRANSITIONS.items() for new in targets}
    found = set()
    for old in RunState:
        for new in RunState:
            if old != new and _database_allows(old, new):
                found.add((old, new))

    assert found == allowed


def _database_allows(old, new):
    run = make_run()
    with connection.cursor() as cursor:
        # Only a test may bring a run to a state without going there.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE runs_run DISABLE TRIGGER runs_run_transition")
        _put(run, old)
        cursor.execute("ALTER TABLE runs_run ENABLE TRIGGER runs_run_transition")
    try:
        with transaction.atomic():
            _put(run, new)
    except IntegrityError:
        return False
    return True


def _put(run, state):
    Run.objects.filter(pk=run.pk).update(state=state, finished_at=Now() if state in FINAL else None)


def test_the_log_of_a_run_cannot_be_rewritten():
    make_run()

    with pytest.raises(IntegrityError), transaction.atomic():
        RunEvent.objects.update(payload={})
