"""Each mechanism that a guarantee hangs on, as built and taken away: without it the harm is there.

The fence of START and FINISH is in ``test_many_at_once`` and ``test_state_machine``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models.functions import Now

from apps.core import clock
from apps.runs.fleet_models import WorkerNode
from apps.runs.models import Run, RunLease, Schedule, ScheduleFire
from apps.runs.services import dispatch, firing, fleet, leadership, leases, lifecycle, recovery
from apps.runs.services.leadership import SQL
from apps.runs.types import RunState
from tests.factories import make_run, make_schedule, make_worker
from tests.support.threads import apart, at_once

SABOTAGE = pytest.mark.parametrize("sabotaged", [False, True], ids=["as built", "sabotaged"])
CLAIM_FENCE = (
    "AND holder = %(holder)s AND epoch = %(epoch)s\n       AND expires_at > clock_timestamp()"
)


def _running(seat, count):
    worker = make_worker(slots=count)
    for _ in range(count):
        make_run()
    for claimed in dispatch.claim(seat, slots=count):
        leases.start(run_id=claimed.run_id, token=claimed.token, worker=worker)
    return worker


@pytest.mark.django_db
@SABOTAGE
def test_the_epoch_keeps_a_deposed_leader_from_claiming(seat, monkeypatch, sabotaged):
    leadership.leave(seat)
    leadership.take("successor")
    make_run()
    if sabotaged:
        assert CLAIM_FENCE in SQL["claim"]
        statements = dict(SQL) | {"claim": SQL["claim"].replace(CLAIM_FENCE, "")}
        monkeypatch.setattr(dispatch, "SQL", statements)

    assert len(dispatch.claim(seat, slots=1)) == (1 if sabotaged else 0)


@pytest.mark.django_db
@SABOTAGE
def test_the_share_keeps_an_outage_from_giving_all_runs_away_at_once(seat, monkeypatch, sabotaged):
    worker = _running(seat, 10)
    fleet.depart(worker_id=worker.pk)
    if sabotaged:
        monkeypatch.setattr(recovery, "STORM_SHARE", 1.0)

    assert recovery.reclaim(seat, trust_silence=True) == (10 if sabotaged else 2)


@pytest.mark.django_db
@SABOTAGE
def test_a_leader_that_was_blind_itself_takes_no_silence_for_death(seat, sabotaged):
    _running(seat, 5)
    WorkerNode.objects.update(last_seen=Now() - timedelta(hours=1))

    taken = recovery.reclaim(seat, trust_silence=sabotaged)

    assert bool(taken) is sabotaged


@contextmanager
def _without_the_index():
    """Fires of one time are no longer refused twice."""
    table = "runs_schedule_fire"
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT runs_schedule_fire_once")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            ScheduleFire.objects.all().delete()
            cursor.execute(
                f"ALTER TABLE {table} ADD CONSTRAINT runs_schedule_fire_once"
                " UNIQUE (schedule_id, fire_at)"
            )


@pytest.mark.django_db(transaction=True)
@SABOTAGE
def test_the_unique_time_keeps_two_engines_from_firing_twice(seat, monkeypatch, sabotaged):
    """Both engines believe they lead, and neither sees the other's lock."""
    moment = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda: moment)
    make_schedule(cron="* * * * *")
    monkeypatch.setattr(clock, "now", lambda: moment + timedelta(minutes=1))
    together = Barrier(2)
    submit = firing._submit

    def meet(*args):
        together.wait(timeout=10)
        return submit(*args)

    monkeypatch.setattr(leadership, "require", lambda _: None)
    monkeypatch.setattr(type(Schedule.objects.all()), "select_for_update", lambda rows, **_: rows)
    monkeypatch.setattr(firing, "_submit", meet)

    def fire_twice():
        done = at_once([lambda: firing.fire(seat)] * 2, errors=IntegrityError)
        return sum(each for each in done if isinstance(each, int))

    if sabotaged:
        with _without_the_index():
            assert fire_twice() == 2
    else:
        assert fire_twice() == 1
    assert Run.objects.count() == (2 if sabotaged else 1)


@pytest.mark.django_db(transaction=True)
@SABOTAGE
def test_a_worker_that_stalls_in_the_middle_of_an_act_holds_up_no_other_run(
    seat, monkeypatch, sabotaged
):
    """The engine steps over the run whose row is locked. Waiting for it, it would do nothing else."""
    worker = _running(seat, 2)
    stalled = RunLease.objects.order_by("started_at").first().run_id
    fleet.depart(worker_id=worker.pk)
    locked, done = Event(), Event()

    def stall():
        with transaction.atomic():
            lifecycle.lock(stalled)
            locked.set()
            done.wait(20)

    if sabotaged:
        waiting = SQL["orphans"].replace("SKIP LOCKED", "")
        monkeypatch.setattr(recovery, "SQL", dict(SQL) | {"orphans": waiting})
    with ThreadPoolExecutor(1) as pool:
        pool.submit(apart, stall)
        assert locked.wait(10)
        try:
            taken = _sweeps(seat)
        finally:
            done.set()

    assert taken == (0 if sabotaged else 1)
    still = Run.objects.filter(state=RunState.RUNNING)
    assert still.count() == 2 - taken
    if not sabotaged:
        assert recovery.reclaim(seat, trust_silence=False) == 1
        assert not still.exists()


def _sweeps(seat):
    """What an engine takes in three sweeps, with its bound on waiting for locks."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '200ms'")
    try:
        return sum(recovery.reclaim(seat, trust_silence=False) for _ in range(3))
    except OperationalError:
        return 0
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
