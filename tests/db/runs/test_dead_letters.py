"""Runs that ended badly: each leaves a letter, which is settled once."""

from __future__ import annotations

import re
from functools import partial

import pytest
from django.db import IntegrityError, connection, transaction

from apps.core import clock
from apps.events.models import AuditEntry
from apps.identity.types import Role
from apps.runs.errors import LetterSettled, NoDeadLetter
from apps.runs.models import DeadLetter, Run
from apps.runs.services import backlog, bulk, control, letters, submission
from apps.runs.types import BulkVerb, RetryPolicy, RunState
from tests.faces import api, problem, session
from tests.factories import (
    make_actor,
    make_bulk_act,
    make_dead_run,
    make_project,
    make_run,
)
from tests.support.stand_in import StandIn
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def by(project):
    return make_actor(Role.OPERATOR, organization=project.organization)


def _open():
    return set(DeadLetter.objects.open().values_list("run", flat=True))


def test_every_end_that_nobody_wanted_leaves_a_letter(project):
    failed = make_run(project=project)
    StandIn(failed).fail("command_failed", "It ended with 1.")
    dead = make_run(project=project, retry={"max_attempts": 1})
    StandIn(dead).fail("sandbox_lost", "It is gone.", retryable=True)
    expired = make_dead_run(project=project)
    done, cancelled = make_run(project=project), make_run(project=project)
    StandIn(done).succeed("Done.")
    control.cancel(by=make_actor(organization=project.organization), run=cancelled)

    assert _open() == {failed.pk, dead.pk, expired.pk}
    codes = dict(DeadLetter.objects.values_list("run", "code"))
    assert codes[failed.pk] == "command_failed"
    assert codes[dead.pk] == "sandbox_lost"


def test_a_letter_is_written_for_an_update_by_hand_as_well(project):
    run = make_run(project=project)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE runs_run SET state = 'expired', finished_at = now() WHERE id = %s", [run.pk]
        )

    assert DeadLetter.objects.get().code == "expired"


def test_requeuing_puts_a_new_run_in_its_place_once(project, by):
    dead = make_dead_run(project=project)
    first = control.requeue(by=by, run=dead)
    again = control.requeue(by=by, run=dead)

    assert (first.replayed, again.replayed) == (False, True)
    assert first.run == again.run
    assert Run.objects.count() == 2
    assert first.run.rerun_of == dead
    assert Run.objects.get(pk=first.run.pk).state == RunState.QUEUED
    assert _open() == set()
    entry = AuditEntry.objects.get(action="run.requeue")
    assert entry.detail["as"] == str(first.run.public_id)


def test_what_was_dismissed_is_not_requeued(project, by):
    dead = make_dead_run(project=project)
    letters.dismiss(by=by, run=dead)

    with pytest.raises(LetterSettled, match="dismissed"):
        control.requeue(by=by, run=dead)
    assert AuditEntry.objects.filter(action="run.dismiss").count() == 1


def test_a_run_that_is_not_dead_cannot_be_requeued(project, by):
    with pytest.raises(NoDeadLetter):
        control.requeue(by=by, run=make_run(project=project))


def test_running_it_again_settles_the_letter_too(project, by):
    dead = make_dead_run(project=project)
    again = submission.rerun(by=by, run=dead).run

    assert DeadLetter.objects.get().requeued_as == again


@pytest.mark.django_db(transaction=True)
def test_two_people_requeue_a_run_at_once_and_one_run_comes_of_it():
    project = make_project()
    dead = make_dead_run(project=project)
    people = [make_actor(Role.OPERATOR, organization=project.organization) for _ in range(4)]

    def requeue(by):
        return control.requeue(by=by, run=Run.objects.get(pk=dead.pk)).run

    made = at_once([partial(requeue, by) for by in people])

    assert len({run.pk for run in made}) == 1
    assert Run.objects.count() == 2


def test_the_database_lets_a_letter_be_settled_once(project, by):
    letters.dismiss(by=by, run=make_dead_run(project=project))

    for change in ({"settled_at": None}, {"settled_at": clock.now()}):
        with pytest.raises(IntegrityError, match="settled once"), transaction.atomic():
            DeadLetter.objects.update(**change)


def test_without_the_trigger_a_settled_letter_could_be_opened_again(project, by):
    """Sabotage: it is the trigger that refuses."""
    letters.dismiss(by=by, run=make_dead_run(project=project))
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE runs_deadletter DISABLE TRIGGER runs_deadletter_settled_once")
        DeadLetter.objects.update(settled_at=None)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE runs_deadletter ENABLE TRIGGER runs_deadletter_settled_once")

    assert len(_open()) == 1


@pytest.mark.django_db(transaction=True)
def test_settling_without_an_audit_entry_is_refused():
    make_dead_run()
    with pytest.raises(IntegrityError, match="no audit entry"), transaction.atomic():
        DeadLetter.objects.update(settled_at=clock.now())


# --- in bulk --------------------------------------------------------------------------------------


def test_all_with_one_reason_are_requeued_and_the_others_left(project, by, seat):
    lost = [make_dead_run(project=project, code="sandbox_lost") for _ in range(3)]
    other = make_dead_run(project=project, code="out_of_memory")
    settled = make_dead_run(project=project, code="sandbox_lost")
    letters.dismiss(by=by, run=settled)
    act = make_bulk_act(by=by, verb=BulkVerb.REQUEUE, project=project, error="sandbox_lost")
    bulk.advance(seat)

    act.refresh_from_db()
    assert (act.matched, act.done) == (3, 3)
    assert _open() == {other.pk}
    again = Run.objects.filter(rerun_of__isnull=False)
    assert set(again.values_list("rerun_of", flat=True)) == {run.pk for run in lost}


def test_one_that_was_settled_meanwhile_is_not_requeued_twice(project, by, seat, monkeypatch):
    dead = [make_dead_run(project=project) for _ in range(2)]
    act = make_bulk_act(by=by, verb=BulkVerb.REQUEUE, project=project)
    looked = bulk._next

    def late(*given):
        keys = list(looked(*given))
        if not Run.objects.filter(rerun_of=dead[0]).exists():
            control.requeue(by=by, run=dead[0])
        return keys

    monkeypatch.setattr(bulk, "_next", late)
    bulk.advance(seat)

    act.refresh_from_db()
    assert act.done == 1
    assert Run.objects.filter(rerun_of__isnull=False).count() == 2


def test_dismissing_in_bulk_makes_no_run(project, by, seat):
    for _ in range(3):
        make_dead_run(project=project)
    make_bulk_act(by=by, verb=BulkVerb.DISMISS, project=project)
    bulk.advance(seat)

    assert _open() == set()
    assert Run.objects.count() == 3
    assert AuditEntry.objects.get(action="run.dismiss_many").detail["count"] == 3


# --- faces ----------------------------------------------------------------------------------------


def test_the_api_lists_what_is_open_and_requeues_it(project, by):
    dead = make_dead_run(project=project, code="sandbox_lost")
    make_run(project=project)
    client = api(by.user)
    listed = client.get("/api/dead-letters?error=sandbox_lost").json()["results"]
    answer = client.post(f"/api/runs/{dead.public_id}/requeue")

    assert [run["id"] for run in listed] == [str(dead.public_id)]
    assert answer.status_code == 202
    assert client.post(f"/api/runs/{dead.public_id}/requeue").status_code == 200
    assert client.get("/api/dead-letters").json()["results"] == []
    dismissed = client.post(f"/api/runs/{dead.public_id}/dismiss")
    assert problem(dismissed)["code"] == "dead_letter_settled"


# --- while the queue is full ----------------------------------------------------------------------


@pytest.fixture
def full(project, settings):
    """A dead run, and no room for another one."""
    dead = make_dead_run(project=project)
    make_run(project=project)
    settings.AOS_QUEUE_LIMIT = 1
    backlog.forget()
    yield dead
    backlog.forget()


def _has_room(settings):
    settings.AOS_QUEUE_LIMIT = 100
    backlog.forget()


def test_requeuing_into_a_full_queue_is_refused_and_loses_nothing(full, by, settings):
    client = api(by.user)
    refused = client.post(f"/api/runs/{full.public_id}/requeue")

    assert (refused.status_code, problem(refused)["code"]) == (429, "queue_full")
    assert refused.headers["Retry-After"] == "10"
    assert _open() == {full.pk}
    assert Run.objects.count() == 2

    _has_room(settings)
    assert client.post(f"/api/runs/{full.public_id}/requeue").status_code == 202
    assert _open() == set()


def test_the_page_says_that_the_queue_is_full(full, by):
    client = session(by.user)
    client.post(f"/runs/{full.public_id}/requeue")

    assert "of your organization may wait" in client.get("/dead-letters").content.decode()
    assert _open() == {full.pk}


def test_in_bulk_too_and_a_second_act_finds_the_letters(full, project, by, seat, settings):
    act = make_bulk_act(by=by, verb=BulkVerb.REQUEUE, project=project)
    bulk.advance(seat)

    act.refresh_from_db()
    assert (act.matched, act.done, act.refused) == (1, 0, 1)
    assert "may wait" in act.refusals[0]["reason"]
    assert _open() == {full.pk}

    _has_room(settings)
    again = make_bulk_act(by=by, verb=BulkVerb.REQUEUE, project=project)
    bulk.advance(seat)
    again.refresh_from_db()
    assert (again.done, again.refused) == (1, 0)
    assert _open() == set()


def test_the_page_says_why_and_requeues_with_one_click(project, by):
    dead = make_dead_run(project=project)
    client = session(by.user)
    shown = client.get("/dead-letters").content.decode()
    assert "No worker was free in time" in shown
    assert "Nobody was there to do it." in shown

    client.post(f"/runs/{dead.public_id}/requeue")
    assert _open() == set()
    assert "No dead letters" in client.get("/dead-letters").content.decode()


def test_the_page_shows_the_newest_first_and_the_older_ones_behind_them(project, by):
    dead = [make_dead_run(project=project) for _ in range(31)]
    client = session(by.user)
    first = client.get("/dead-letters").content.decode()
    link = re.search(r'href="(/dead-letters\?before=\d+)"', first)

    assert str(dead[30].public_id) in first
    assert str(dead[0].public_id) not in first
    assert link
    assert str(dead[0].public_id) in client.get(link[1]).content.decode()


def test_a_viewer_sees_letters_and_no_buttons(project):
    viewer = make_actor(Role.VIEWER, organization=project.organization)
    dead = make_dead_run(project=project)
    client = session(viewer.user)

    assert "Requeue" not in client.get("/dead-letters").content.decode()
    assert client.post(f"/runs/{dead.public_id}/requeue").status_code == 403
    assert len(_open()) == 1


def test_letters_of_other_projects_are_not_shown(project):
    make_dead_run(project=project)
    stranger = make_actor(Role.OPERATOR, project=make_project(organization=project.organization))

    assert api(stranger.user).get("/api/dead-letters").json()["results"] == []


# --- which end it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry", "retryable", "state"),
    [
        ({"max_attempts": 1}, True, RunState.DEAD),
        ({"max_attempts": 1}, False, RunState.FAILED),
        # The policy says that this is no use: there were attempts left.
        ({"max_attempts": 5, "give_up_on": ["odd"]}, True, RunState.FAILED),
        # The policy wanted more attempts, and there was none left.
        ({"max_attempts": 1, "retry_on": ["odd"]}, False, RunState.DEAD),
    ],
)
def test_dead_means_used_up_and_failed_means_given_up(retry, retryable, state):
    run = make_run(retry=retry)
    StandIn(run).fail("odd", "Odd.", retryable=retryable)

    run.refresh_from_db()
    assert run.state == state


def test_the_wait_is_never_longer_than_its_limit():
    policy = RetryPolicy(base_s=100, max_s=120, jitter=1)

    assert policy.delay_s(attempt=3, dice=0.999) == 120
