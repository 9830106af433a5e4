"""Run seconds that a tree of runs shares: never more than granted, however many ask at once."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from threading import Barrier

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum
from django.db.models.functions import Now

from apps.runs.errors import BudgetSpent
from apps.runs.kin_models import Budget, Share
from apps.runs.models import Attempt, Run
from apps.runs.services import budgets, children, control, dispatch, submission
from apps.runs.services.children import Wish
from apps.runs.types import RunState, TaskSpec
from tests.faces import api, key, problem
from tests.factories import make_run
from tests.support.stand_in import StandIn
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db


def _start(worker, name, **fields):
    return children.start(worker.started, Wish(**{"agent": "work", "input": {}} | fields), key=name)


def _lasted(run, seconds):
    """Let the attempt at hand have begun so long ago."""
    Attempt.objects.filter(run=run, finished_at=None).update(
        started_at=Now() - timedelta(seconds=seconds)
    )


def _taken():
    """What is taken, which is always what the shares hold."""
    taken = Budget.objects.get().taken_s
    assert taken == Share.objects.aggregate(sum=Sum("held_s"))["sum"]
    return taken


def test_a_run_and_its_children_hold_what_their_next_attempts_may_take(scene):
    root = make_run(**scene, budget_s=1000, timeout_s=100)
    assert _taken() == 100

    child = _start(StandIn(root), "a", timeout_s=200)

    assert _taken() == 300
    assert _start(StandIn(child), "b", timeout_s=50).timeout_s == 50
    assert _taken() == 350


def test_an_ended_run_gives_back_what_it_did_not_use(scene):
    root = make_run(**scene, budget_s=1000, timeout_s=100)
    worker = StandIn(root)
    child = _start(worker, "a", timeout_s=200)
    second = StandIn(child)
    _lasted(child, 20)
    second.succeed()

    assert float(_taken()) == pytest.approx(120, abs=2)
    assert float(Share.objects.get(run=child).used_s) == pytest.approx(20, abs=2)


def test_a_run_that_never_started_gives_all_back(scene):
    worker = StandIn(make_run(**scene, budget_s=1000, timeout_s=100))
    child = _start(worker, "a", timeout_s=200)
    control.cancel(by=scene["by"], run=child)

    assert _taken() == 100


def test_no_more_is_charged_than_was_held(scene):
    worker = StandIn(make_run(**scene, budget_s=1000, timeout_s=100))
    child = _start(worker, "a", timeout_s=200)
    second = StandIn(child)
    _lasted(child, 5000)
    second.succeed()

    assert _taken() == 300


def test_the_last_child_runs_no_longer_than_is_left_and_then_there_is_none(scene):
    worker = StandIn(make_run(**scene, budget_s=250, timeout_s=100))

    assert _start(worker, "a", timeout_s=100).timeout_s == 100
    assert _start(worker, "b", timeout_s=100).timeout_s == 50
    with pytest.raises(BudgetSpent):
        _start(worker, "c", timeout_s=100)
    assert Run.objects.count() == 3
    assert _taken() == 250


def test_a_key_that_is_known_takes_nothing_again(scene):
    worker = StandIn(make_run(**scene, budget_s=250, timeout_s=100))
    for _ in range(3):
        _start(worker, "a", timeout_s=100)

    assert _taken() == 200


def test_a_run_takes_no_longer_than_its_own_budget(scene):
    assert make_run(**scene, budget_s=30, timeout_s=100).timeout_s == 30


def test_another_attempt_takes_what_it_needs_beyond_what_is_left_of_the_share(scene):
    root = make_run(**scene, budget_s=250, timeout_s=100, retry={"base_s": 0.0})
    first = StandIn(root)
    _lasted(root, 60)
    first.fail("x", "Again.", retryable=True)

    assert float(_taken()) == pytest.approx(160, abs=2)
    assert Run.objects.get(pk=root.pk).timeout_s == 100

    dispatch.promote()
    second = StandIn(root)
    _lasted(root, 100)
    second.fail("x", "Again.", retryable=True)
    assert float(_taken()) == pytest.approx(250, abs=2)
    assert Run.objects.get(pk=root.pk).timeout_s == pytest.approx(90, abs=2)


def test_a_run_that_has_used_all_is_not_tried_again(scene):
    root = make_run(**scene, budget_s=100, timeout_s=100)
    worker = StandIn(root)
    _lasted(root, 100)

    worker.fail("x", "Again.", retryable=True)

    root.refresh_from_db()
    assert (root.state, root.error["code"]) == (RunState.EXPIRED, "budget_spent")
    assert root.letter.code == "budget_spent"
    assert _taken() == 100


def test_a_child_has_no_budget_of_its_own(scene):
    parent = make_run(**scene)
    body = {"project": scene["project"].slug, "agent": "work", "input": {}}

    answer = api(scene["by"].user).post(
        "/api/run", body | {"parent": str(parent.public_id), "budget_s": 60}, headers=key()
    )

    assert answer.status_code == 422
    assert problem(answer)["params"]["errors"][0]["field"] == "budget_s"


def test_over_the_api_a_budget_is_given_and_read(scene):
    client = api(scene["by"].user)
    body = {"project": scene["project"].slug, "agent": "work", "input": {}, "timeout_s": 60}

    made = client.post("/api/run", body | {"budget_s": 100}, headers=key()).json()
    first = client.post("/api/run", body | {"parent": made["id"]}, headers=key(1)).json()
    none = client.post("/api/run", body | {"parent": made["id"]}, headers=key(2))

    assert made["budget"] == {"granted_s": 100, "taken_s": 60.0}
    assert first["budget"] is None
    assert client.get(f"/api/runs/{made['id']}").json()["budget"]["taken_s"] == 100.0
    assert (none.status_code, problem(none)["code"]) == (409, "budget_spent")


def test_running_it_again_grants_as_much_again(scene):
    run = make_run(**scene, budget_s=500)

    again = control.rerun(by=scene["by"], run=run).run

    assert Budget.objects.get(run=again).granted_s == 500


def test_many_submitted_together_have_theirs(scene):
    tasks = [TaskSpec(input={}, budget_s=500), TaskSpec(input={})]

    runs = submission.submit_many(**scene, tasks=tasks)

    assert [budget.run_id for budget in Budget.objects.all()] == [runs[0].pk]


@pytest.mark.parametrize("wrong", [{"taken_s": 101}, {"taken_s": -1}])
def test_the_database_refuses_to_take_more_than_was_granted(scene, wrong):
    make_run(**scene, budget_s=100, timeout_s=50)

    with pytest.raises(IntegrityError, match="runs_budget_not_exceeded"), transaction.atomic():
        Budget.objects.update(**wrong)


def test_the_database_refuses_to_grant_more_later(scene):
    make_run(**scene, budget_s=100)

    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic():
        Budget.objects.update(granted_s=1000)


def test_the_database_refuses_a_share_that_has_used_more_than_it_holds(scene):
    make_run(**scene, budget_s=100)

    with pytest.raises(IntegrityError, match="runs_share_not_exceeded"), transaction.atomic():
        Share.objects.update(used_s=101)


# --- many at once ---------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_many_children_at_once_take_exactly_what_there_is(scene):
    worker = StandIn(make_run(**scene, budget_s=400, timeout_s=100))

    told = at_once(
        [lambda n=n: _start(worker, f"k{n}", timeout_s=60) for n in range(10)], errors=BudgetSpent
    )

    made = [each for each in told if isinstance(each, Run)]
    assert sorted(run.timeout_s for run in made) == [60] * 5
    assert _taken() == 400


def _without_the_lock(monkeypatch, people):
    """So many read what is left before any of them takes of it."""
    everybody = Barrier(people)

    def unlocked(root_id):
        found = Budget.objects.get(pk=root_id)
        everybody.wait(timeout=20)
        return found

    monkeypatch.setattr(budgets, "_held", unlocked)
    monkeypatch.setattr(children.kin, "lock", lambda *_, **__: None)


@pytest.mark.django_db(transaction=True)
def test_without_lock_and_constraint_they_take_more(scene, monkeypatch):
    worker = StandIn(make_run(**scene, budget_s=400, timeout_s=100))
    _without_the_lock(monkeypatch, 10)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE runs_budget DROP CONSTRAINT runs_budget_not_exceeded")
    try:
        at_once([lambda n=n: _start(worker, f"k{n}", timeout_s=60) for n in range(10)])
        assert _taken() == 700
    finally:
        Budget.objects.update(taken_s=0)
        with connection.cursor() as cursor:
            cursor.execute(
                "ALTER TABLE runs_budget ADD CONSTRAINT runs_budget_not_exceeded"
                " CHECK (taken_s >= 0 AND taken_s <= granted_s)"
            )


@pytest.mark.django_db(transaction=True)
def test_without_the_lock_the_constraint_still_refuses(scene, monkeypatch):
    worker = StandIn(make_run(**scene, budget_s=400, timeout_s=100))
    _without_the_lock(monkeypatch, 6)

    at_once(
        [lambda n=n: _start(worker, f"k{n}", timeout_s=60) for n in range(6)],
        errors=IntegrityError,
    )

    assert _taken() == Decimal(400)


@pytest.mark.django_db(transaction=True)
def test_ends_at_once_give_back_exactly_what_was_not_used(scene):
    worker = StandIn(make_run(**scene, budget_s=1000, timeout_s=100))
    started = [_start(worker, f"k{n}", timeout_s=60) for n in range(8)]
    workers = [StandIn(child) for child in started]

    at_once([each.succeed for each in workers])

    assert 100 <= _taken() < 150
