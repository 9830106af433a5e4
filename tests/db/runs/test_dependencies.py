"""Runs that wait for runs: held back, woken by the end they wait for, ended when it did not go well."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from apps.core import clock
from apps.core.errors import Invalid
from apps.events.models import AuditEntry, OutboxEntry
from apps.events.types import EventType
from apps.runs.models import Dependency, ReadyRun, Run, RunLease, ScheduledRun, WaitingRun
from apps.runs.services import (
    control,
    dependencies,
    dispatch,
    lifecycle,
    queues,
    recovery,
    submission,
)
from apps.runs.services.submission import Wanted
from apps.runs.types import Failure, Need, OnFailure, RunState, TaskSpec
from tests.faces import api, key, problem
from tests.factories import make_run
from tests.support.stand_in import StandIn
from tests.support.threads import apart, at_once, until_somebody_waits

pytestmark = pytest.mark.django_db
WHY = Failure(code="cancelled", detail="Because.")


def _after(scene, *runs, on_failure="fail", **task):
    needs = tuple(Need(run=run.public_id, on_failure=OnFailure(on_failure)) for run in runs)
    return make_run(**scene, depends_on=needs, **task)


def _end(run, state="cancelled"):
    with transaction.atomic(), connection.cursor() as cursor:
        # What ends it, and whether somebody asked for it, is not what these tests are about.
        cursor.execute("SELECT set_config('aos.audited', pg_current_xact_id()::text, true)")
        lifecycle.close(lifecycle.lock(run.pk), RunState(state), failure=WHY)


def _state(run):
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)


def _is_let_go(run):
    """In the queue, or claimed from it since."""
    tables = (ScheduledRun, ReadyRun, RunLease)
    return any(table.objects.filter(run=run).exists() for table in tables)


# --- waiting and waking ---------------------------------------------------------------------------


def test_a_run_waits_until_the_last_it_needs_has_succeeded(scene):
    first, second = make_run(**scene), make_run(**scene)
    last = _after(scene, first, second)
    assert WaitingRun.objects.get(run=last).open == 2
    assert not _is_let_go(last)
    assert queues.why_waiting(last) == "It waits for 2 runs to end."

    StandIn(first).succeed("Done.")
    assert not _is_let_go(last)
    StandIn(second).succeed("Done.")

    assert _is_let_go(last)
    assert not WaitingRun.objects.exists()
    dispatch.promote()
    StandIn(last).succeed("Done.")
    assert _state(last) == RunState.SUCCEEDED


def test_it_is_woken_in_the_transaction_that_ends_what_it_waits_for(scene):
    first = make_run(**scene)
    last = _after(scene, first)
    worker = StandIn(first)
    with transaction.atomic():
        worker.succeed("Done.")
        assert _is_let_go(last)
        transaction.set_rollback(True)

    assert not _is_let_go(last)
    assert WaitingRun.objects.get(run=last).open == 1


def test_what_has_succeeded_already_holds_nobody_back(scene):
    first = make_run(**scene)
    StandIn(first).succeed("Done.")
    last = _after(scene, first)

    assert ReadyRun.objects.filter(run=last).exists()
    assert Dependency.objects.filter(run=last).exists()


def test_a_later_start_still_counts_when_all_have_ended(scene):
    first = make_run(**scene)
    later = clock.now() + timedelta(hours=1)
    last = _after(scene, first, run_at=later)
    StandIn(first).succeed("Done.")

    assert ScheduledRun.objects.get(run=last).due_at == later


def test_a_queue_deadline_ends_a_run_that_still_waits_for_others(scene, seat):
    first = make_run(**scene)
    last = _after(scene, first, queue_deadline_s=60)
    WaitingRun.objects.update(queue_deadline=Now() - timedelta(seconds=1))

    assert recovery.expire_queued(seat) == 1
    assert _state(last) == RunState.EXPIRED
    assert not WaitingRun.objects.exists()


# --- what did not succeed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_failure", "state", "code"),
    [("fail", RunState.FAILED, "dependency_failed"), ("skip", RunState.CANCELLED, "skipped")],
)
def test_it_ends_unstarted_when_what_it_needs_does_not_succeed(
    scene, seat, on_failure, state, code
):
    first = make_run(**scene)
    last = _after(scene, first, on_failure=on_failure)
    _end(first)
    assert "did not succeed" in queues.why_waiting(last)

    assert dependencies.end_decided(seat) == 1
    last.refresh_from_db()
    assert (last.state, last.error["code"], last.attempts) == (state, code, 0)
    assert str(first.public_id) in last.error["detail"]
    assert OutboxEntry.objects.filter(run_id=last.public_id, type=EventType.RECEIPT).count() == 1
    assert AuditEntry.objects.get(action="run.dependency_failed").detail["count"] == 1


def test_it_may_run_all_the_same(scene, seat):
    first = make_run(**scene)
    last = _after(scene, first, on_failure="run")
    _end(first)

    assert dependencies.end_decided(seat) == 0
    assert _is_let_go(last)


def test_a_chain_falls_to_its_end_each_link_as_it_says(scene, seat):
    runs = [make_run(**scene)]
    for how in ("fail", "skip", "run", "fail"):
        runs.append(_after(scene, runs[-1], on_failure=how))
    _end(runs[0])
    dependencies.end_decided(seat)

    assert [_state(run) for run in runs] == ["cancelled", "failed", "cancelled", "queued", "queued"]
    assert _is_let_go(runs[3])
    assert not _is_let_go(runs[4])


def test_what_had_failed_before_it_was_named_decides_at_once(scene, seat):
    first = make_run(**scene)
    _end(first)
    last = _after(scene, first)

    assert dependencies.end_decided(seat) == 1
    assert _state(last) == RunState.FAILED


def test_cancelling_a_run_that_waits_leaves_nothing_behind(scene):
    first = make_run(**scene)
    last = _after(scene, first)
    control.cancel(by=scene["by"], run=last)
    StandIn(first).succeed("Done.")

    assert _state(last) == RunState.CANCELLED
    assert not WaitingRun.objects.exists()
    assert not _is_let_go(last)


# --- the database ---------------------------------------------------------------------------------


def _put_in_the_queue(run):
    dispatch.enqueue(
        run_id=run.pk,
        organization_id=run.organization_id,
        queue=run.queue,
        priority=run.priority,
    )


def test_the_database_refuses_to_start_a_run_before_what_it_needs_has_ended(scene, seat):
    """Whatever the queue believes: here it was put in by hand."""
    first = make_run(**scene)
    last = _after(scene, first)
    _put_in_the_queue(last)

    with pytest.raises(IntegrityError, match="has not ended as it must"), transaction.atomic():
        StandIn(last)


def test_without_that_trigger_it_would_start(scene, seat):
    """Sabotage."""
    first = make_run(**scene)
    last = _after(scene, first)
    _put_in_the_queue(last)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("DROP TRIGGER runs_run_needs ON runs_run")
    StandIn(last)

    assert _state(last) == RunState.RUNNING
    assert _state(first) == RunState.QUEUED


def test_without_waking_a_run_waits_for_ever(scene):
    """Sabotage."""
    first = make_run(**scene)
    last = _after(scene, first)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("DROP TRIGGER runs_run_wake ON runs_run")
    StandIn(first).succeed("Done.")

    assert not _is_let_go(last)


def test_a_cycle_cannot_be_written(scene):
    first = make_run(**scene)
    last = _after(scene, first)

    with pytest.raises(IntegrityError, match="on_an_earlier_run"), transaction.atomic():
        Dependency.objects.create(run=first, on=last, on_failure="fail")
    with pytest.raises(IntegrityError, match="on_an_earlier_run"), transaction.atomic():
        Dependency.objects.create(run=first, on=first, on_failure="fail")


def test_another_organizations_run_cannot_be_named(scene):
    abroad = make_run()
    mine = make_run(**scene)

    with pytest.raises(Invalid, match="that you can see"):
        _after(scene, abroad)
    with pytest.raises(IntegrityError, match="of its organization"), transaction.atomic():
        Dependency.objects.create(run=mine, on=abroad, on_failure="fail")


def test_a_run_that_has_started_cannot_be_made_to_wait(scene):
    first, second = make_run(**scene), make_run(**scene)
    StandIn(second)

    with pytest.raises(IntegrityError, match="before it has started"), transaction.atomic():
        Dependency.objects.create(run=second, on=first, on_failure="fail")


def test_what_a_run_depends_on_is_never_changed(scene):
    _after(scene, make_run(**scene))

    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
        Dependency.objects.update(on_failure="run")


# --- at the same time -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_dependency_named_while_the_other_run_ends_is_never_lost(scene):
    """Either the submission sees the end, or the end sees the submission."""
    for _ in range(12):
        first = make_run(**scene)
        worker = StandIn(first)
        at_once([worker.succeed, partial(_after, scene, first)])

    assert Dependency.objects.count() == 12
    assert not WaitingRun.objects.exists()
    waiting = Run.objects.filter(needs__isnull=False)
    assert all(_is_let_go(run) for run in waiting)


@pytest.mark.django_db(transaction=True)
def test_an_end_that_waits_for_a_submission_sees_what_it_named(scene):
    """The order that loses a wake-up where one snapshot serves the whole statement."""
    first = make_run(**scene)
    worker = StandIn(first)
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        last = _after(scene, first)
        finishing = pool.submit(apart, worker.succeed)
        until_somebody_waits()
    finishing.result()

    assert _is_let_go(last)


@pytest.mark.django_db(transaction=True)
def test_many_ends_at_once_count_each_once_and_never_block_each_other_for_good(scene):
    needed = [make_run(**scene) for _ in range(8)]
    # Each waits for all, so every end touches every one of them.
    waiting = [_after(scene, *needed) for _ in range(6)]
    workers = [StandIn(run) for run in needed]
    at_once([worker.succeed for worker in workers])

    assert all(_is_let_go(run) for run in waiting)
    assert ScheduledRun.objects.count() == len(waiting)


# --- in bulk and over HTTP ------------------------------------------------------------------------


def test_items_of_a_request_depend_on_earlier_ones(scene):
    def task(*items):
        return Wanted(
            project=scene["project"],
            agent=scene["agent"],
            task=TaskSpec(input={}, depends_on=tuple(Need(item=item) for item in items)),
        )

    told = submission.submit_bulk(
        by=scene["by"],
        wanted=[task(), task(0), task(0, 1), task(3), task(7), task(4)],
        key="k" * 16,
        body=1,
    )

    refused = [each.refusal and each.refusal["detail"] for each in told.verdicts]
    assert refused[:3] == [None, None, None]
    assert "no earlier item" in refused[3]
    assert "no earlier item" in refused[4]
    assert "was refused" in refused[5]
    runs = list(Run.objects.order_by("pk"))
    assert [(d.run_id, d.on_id) for d in Dependency.objects.all()] == [
        (runs[1].pk, runs[0].pk),
        (runs[2].pk, runs[0].pk),
        (runs[2].pk, runs[1].pk),
    ]
    assert list(ReadyRun.objects.values_list("run", flat=True)) == [runs[0].pk]


def test_a_long_chain_runs_link_by_link(scene):
    wanted = [
        Wanted(
            project=scene["project"],
            agent=scene["agent"],
            task=TaskSpec(input={}, depends_on=(Need(item=place - 1),) if place else ()),
        )
        for place in range(6)
    ]
    submission.submit_bulk(by=scene["by"], wanted=wanted, key="k" * 16, body=1)
    runs = list(Run.objects.order_by("pk"))
    for now, following in pairwise(runs):
        assert not _is_let_go(following)
        StandIn(now).succeed("Done.")
        dispatch.promote()

    assert ReadyRun.objects.get().run_id == runs[-1].pk


def test_the_api_takes_and_tells_dependencies(scene):
    first = make_run(**scene)
    client = api(scene["by"].user)
    body = {"project": scene["project"].slug, "agent": scene["agent"].slug, "input": {}}
    need = {"run": str(first.public_id), "on_failure": "skip"}
    made = client.post("/api/run", body | {"depends_on": [need]}, format="json", headers=key())
    assert made.status_code == 202

    mine = client.get(f"/api/runs/{made.json()['id']}/dependencies").json()
    theirs = client.get(f"/api/runs/{first.public_id}/dependencies").json()
    assert [each["id"] for each in mine["depends_on"]] == [str(first.public_id)]
    assert mine["depends_on"][0]["on_failure"] == "skip"
    assert [each["id"] for each in theirs["dependents"]] == [made.json()["id"]]


@pytest.mark.parametrize(
    "need",
    [
        {"run": "00000000-0000-7000-8000-000000000000"},
        {"item": 0},
        {},
        {"run": "00000000-0000-7000-8000-000000000000", "item": 0},
        {"item": 0, "on_failure": "shrug"},
    ],
)
def test_a_dependency_that_makes_no_sense_changes_nothing(scene, need):
    body = {"project": scene["project"].slug, "agent": scene["agent"].slug, "input": {}}
    client = api(scene["by"].user)
    answer = client.post("/api/run", body | {"depends_on": [need]}, format="json", headers=key())

    assert problem(answer)["code"] == "invalid"
    assert not Run.objects.exists()


def test_naming_a_run_twice_is_refused(scene):
    first = make_run(**scene)
    with pytest.raises(Invalid, match="twice"):
        _after(scene, first, first)
