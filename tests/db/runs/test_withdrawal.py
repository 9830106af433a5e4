"""Runs of people who may not run them any more are cancelled, and nobody else's."""

# ruff: noqa: ARG005  # the losses in the table below are all called alike

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection

from apps.core import clock
from apps.events.models import AuditEntry
from apps.identity.actor import Actor
from apps.identity.models import ApiToken, Binding, Withdrawal
from apps.identity.services import bindings, departments, people, tokens
from apps.identity.types import Role
from apps.runs.models import Run, RunLease, WaitingRun
from apps.runs.services import leadership, withdrawal
from apps.runs.types import Need
from tests.factories import (
    make_actor,
    make_agent,
    make_binding,
    make_department,
    make_project,
    make_run,
    make_service_account,
    make_token,
    make_user,
    unwatched,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner():
    return make_actor(Role.OWNER)


@pytest.fixture
def project(owner):
    return make_project(organization=owner.user.organization)


@pytest.fixture
def look(seat, owner):
    """One look of the leader, after a first one that saw everything."""
    Withdrawal.objects.all().delete()
    since = withdrawal.sweep(seat, since=None).until
    Withdrawal.objects.all().delete()
    return lambda: withdrawal.sweep(seat, since=since).cancelled


def submitted_by(user, project, **fields):
    return make_run(project=project, by=Actor(user=user), **fields)


def operator(owner, over=None, role=Role.OPERATOR):
    user = make_user(organization=owner.user.organization)
    make_binding(user, role, over)
    return user


def states(*runs):
    found = dict(Run.objects.values_list("pk", "state"))
    return [found[run.pk] for run in runs]


@unwatched()
def start(run):
    """As if a worker had taken it up."""
    lane = run.ready.lane_id
    run.ready.delete()
    Run.objects.filter(pk=run.pk).update(state="running", attempts=1, started_at=clock.now())
    RunLease.objects.create(
        run=run, lane_id=lane, token=run.pk, seq=1, state="r", dispatch_deadline=clock.now()
    )


def test_runs_of_a_disabled_person_end_with_the_reason_on_record(owner, project, look):
    user = operator(owner)
    waits, runs = submitted_by(user, project), submitted_by(user, project)
    later = submitted_by(user, project, run_at=clock.now() + timedelta(days=1))
    start(runs)
    others = make_run(project=project, by=owner)

    people.deactivate(by=owner, user=user)

    assert look() == 3
    assert states(waits, runs, later, others) == ["cancelled", "cancelling", "cancelled", "queued"]
    waits.refresh_from_db()
    assert f"{user.username}, who submitted it, was disabled" in waits.error["detail"]
    assert RunLease.objects.get(run=runs).cancel_requested_at is not None
    entries = AuditEntry.objects.filter(action="run.cancel")
    assert {entry.resource_id for entry in entries} == {
        str(run.public_id) for run in (waits, runs, later)
    }
    for entry in entries:
        assert (entry.actor_kind, entry.actor_name) == ("platform", "engine")
        assert "was disabled" in entry.detail["why"]


def test_a_second_look_cancels_nothing_twice(owner, project, look):
    user = operator(owner)
    submitted_by(user, project)
    people.deactivate(by=owner, user=user)

    assert [look(), look()] == [1, 0]


LOSSES = {
    "revoked": lambda by, user, held, crew: bindings.revoke(by=by, binding=held),
    "lowered": lambda by, user, held, crew: bindings.grant(by=by, subject=user, role=Role.VIEWER),
    "by hand": lambda by, user, held, crew: Binding.objects.filter(pk=held.pk).delete(),
    "left": lambda by, user, held, crew: departments.remove_member(
        by=by, department=crew, user=user
    ),
    "crew lost it": lambda by, user, held, crew: bindings.revoke(
        by=by, binding=crew.bindings.get()
    ),
    "crew removed": lambda by, user, held, crew: departments.remove(by=by, department=crew),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_whoever_loses_the_role_loses_the_runs(owner, project, look, loss):
    by_crew = loss in {"left", "crew lost it", "crew removed"}
    user = make_user(organization=owner.user.organization)
    crew = make_department(user)
    held = make_binding(crew if by_crew else user, Role.OPERATOR)
    run = submitted_by(user, project)

    assert look() == 0
    LOSSES[loss](owner, user, held, crew)

    assert look() == 1
    run.refresh_from_db()
    assert "has no role here any more" in run.error["detail"]


def test_a_role_that_ends_by_itself_ends_the_runs_too(owner, project, seat):
    user = operator(owner)
    run = submitted_by(user, project)
    now = withdrawal.sweep(seat, since=None).until
    assert states(run) == ["queued"]
    with unwatched():
        Binding.objects.filter(user=user).update(expires_at=now + timedelta(milliseconds=50))
    Withdrawal.objects.all().delete()

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.1)")

    assert withdrawal.sweep(seat, since=now).cancelled == 1
    assert states(run) == ["cancelled"]


def test_a_department_whose_role_ends_by_itself_ends_its_members_runs(owner, project, seat):
    user = make_user(organization=owner.user.organization)
    held = make_binding(make_department(user), Role.OPERATOR)
    run = submitted_by(user, project)
    now = withdrawal.sweep(seat, since=None).until
    with unwatched():
        Binding.objects.filter(pk=held.pk).update(expires_at=now + timedelta(milliseconds=50))
    Withdrawal.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.1)")

    withdrawal.sweep(seat, since=now)

    assert states(run) == ["cancelled"]


def test_a_new_leader_looks_at_everybody(owner, project, seat):
    """What was lost while no engine led, and whose note was lost with it."""
    user = operator(owner)
    run, kept = submitted_by(user, project), make_run(project=project, by=owner)
    people.deactivate(by=owner, user=user)
    Withdrawal.objects.all().delete()

    assert withdrawal.sweep(seat, since=None).cancelled == 1
    assert states(run, kept) == ["cancelled", "queued"]


def test_who_may_still_run_it_by_another_role_keeps_the_run(owner, project, look):
    user = operator(owner)
    make_binding(user, Role.OPERATOR, project)
    elsewhere = make_project(organization=owner.user.organization)
    here, there = submitted_by(user, project), submitted_by(user, elsewhere)

    bindings.revoke(by=owner, binding=user.bindings.get(scope="organization"))

    assert look() == 1
    assert states(here, there) == ["queued", "cancelled"]


def test_an_operator_of_an_agent_who_leaves_the_project_loses_the_runs(owner, project, look):
    agent = make_agent(organization=owner.user.organization)
    user = operator(owner, agent)
    belongs = make_binding(user, Role.VIEWER, project)
    run = submitted_by(user, project, agent=agent)

    bindings.revoke(by=owner, binding=belongs)

    assert look() == 1
    assert states(run) == ["cancelled"]


def test_a_better_role_ends_nothing(owner, project, look):
    user = operator(owner)
    run = submitted_by(user, project)

    bindings.grant(by=owner, subject=user, role=Role.ADMIN)

    assert look() == 0
    assert states(run) == ["queued"]


def test_a_revoked_token_ends_nothing(owner, project, look):
    """A run acts for its person; the token was how they asked."""
    user = operator(owner)
    make_token(user)
    run = submitted_by(user, project)

    tokens.revoke(by=Actor(user=user), token=ApiToken.objects.get(user=user))

    assert look() == 0
    assert states(run) == ["queued"]


def test_a_service_account_that_is_disabled_loses_its_runs(owner, project, look):
    account = make_service_account(role=Role.OPERATOR, organization=owner.user.organization)
    run = submitted_by(account, project)

    people.deactivate(by=owner, user=account)

    assert look() == 1
    assert states(run) == ["cancelled"]


def test_a_submission_under_way_is_caught_by_the_second_look(owner, project, look, seat):
    """It asked before the loss and committed after the first look."""
    user = operator(owner)
    people.deactivate(by=owner, user=user)
    assert look() == 0
    with unwatched():
        type(user).objects.filter(pk=user.pk).update(is_active=True)
        user.refresh_from_db()
        run = submitted_by(user, project)
        type(user).objects.filter(pk=user.pk).update(is_active=False)
    again = Withdrawal.objects.filter(user_id=user.pk, is_second_look=True)
    assert again.count() == 1
    Withdrawal.objects.exclude(is_second_look=True).delete()

    assert look() == 0
    again.update(due_at=clock.now() - timedelta(seconds=1))

    assert look() == 1
    assert states(run) == ["cancelled"]
    assert not again.exists()


def test_many_runs_are_cancelled_a_few_at_a_time(owner, project, look, monkeypatch):
    monkeypatch.setattr(withdrawal, "_RUNS", 2)
    user = operator(owner)
    runs = [submitted_by(user, project) for _ in range(5)]
    start(runs[4])
    people.deactivate(by=owner, user=user)

    assert look() == 2
    # What runs goes before what waits.
    assert states(runs[4]) == ["cancelling"]
    assert [look(), look()] == [2, 1]


def test_a_deposed_leader_cancels_nothing(owner, project, seat):
    user = operator(owner)
    run = submitted_by(user, project)
    people.deactivate(by=owner, user=user)
    leadership.leave(seat)
    leadership.take("another")

    with pytest.raises(leadership.SeatLost):
        withdrawal.sweep(seat, since=None)
    with pytest.raises(leadership.SeatLost):
        withdrawal.sweep(seat, since=clock.now())
    assert states(run) == ["queued"]


def test_runs_that_wait_for_others_are_cancelled_as_well(owner, project, look):
    user = operator(owner)
    first = make_run(project=project, by=owner)
    held = submitted_by(user, project, depends_on=(Need(run=first.public_id),))

    people.deactivate(by=owner, user=user)
    look()

    assert states(first, held) == ["queued", "cancelled"]
    assert not WaitingRun.objects.exists()
