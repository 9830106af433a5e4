"""Ended runs: kept as long as their organization says, and then removed with all that is their own."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection, transaction

from apps.core import clock
from apps.core.errors import Invalid, NotAllowed
from apps.events.models import AuditEntry, OutboxEntry
from apps.identity.actor import Actor
from apps.identity.models import Binding
from apps.identity.types import Role
from apps.runs.kin_models import ChildRun
from apps.runs.models import (
    Artifact,
    Attempt,
    DeadLetter,
    Dependency,
    IdempotencyKey,
    Run,
    RunEvent,
    ScheduleFire,
)
from apps.runs.retention_models import Retention
from apps.runs.services import (
    control,
    dispatch,
    leadership,
    leases,
    lifecycle,
    queues,
    removal,
    submission,
)
from apps.runs.services.leadership import SeatLost
from apps.runs.types import (
    Failure,
    Need,
    OnFailure,
    OnParentEnd,
    Priority,
    RunState,
    TaskSpec,
)
from tests.faces import api, problem, session
from tests.factories import (
    make_actor,
    make_agent,
    make_artifact,
    make_binding,
    make_cast,
    make_dead_run,
    make_organization,
    make_project,
    make_run,
    make_schedule,
    make_user,
    make_worker,
    unwatched,
)

pytestmark = pytest.mark.django_db
DAYS = 30


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def owner(project):
    return make_actor(Role.OWNER, organization=project.organization)


@pytest.fixture
def kept(owner):
    return removal.keep_for(by=owner, days=DAYS)


def over(run, *, days_ago=DAYS + 1):
    """The run was submitted and cancelled so many days ago."""
    if not run.is_over:
        control.cancel(by=make_actor(Role.ADMIN, organization=run.project.organization), run=run)
    return aged(run, days_ago=days_ago)


def aged(run, *, days_ago=DAYS + 1):
    then = clock.now() - timedelta(days=days_ago)
    Run.objects.filter(pk=run.pk).update(created_at=then)
    with unwatched():
        Run.objects.filter(pk=run.pk, finished_at__isnull=False).update(finished_at=then)
    return run


def remove(seat, **how):
    """As in a transaction of its own: checks of rows written before have been made."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
    removed = removal.remove_ended(seat, **how)
    with connection.cursor() as cursor:
        # What still pointed at a removed run would be refused here.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
    return removed


def left():
    return set(Run.objects.values_list("pk", flat=True))


# --- what goes ------------------------------------------------------------------------------------


def test_without_a_time_nothing_is_removed(seat, project):
    run = over(make_run(project=project), days_ago=9999)

    assert remove(seat) == 0
    assert left() == {run.pk}


def test_what_ended_before_the_time_goes_and_what_ended_later_stays(seat, project, kept):
    over(make_run(project=project))
    young = over(make_run(project=project), days_ago=DAYS - 1)

    assert remove(seat) == 1
    assert left() == {young.pk}


def test_a_run_that_was_submitted_long_ago_and_ended_lately_stays(seat, project, kept):
    run = over(make_run(project=project))
    Run.objects.filter(pk=run.pk).update(finished_at=clock.now())

    assert remove(seat) == 0


def test_a_run_goes_with_all_that_is_its_own_and_records_stay(seat, project, kept):
    by = make_actor(organization=project.organization)
    agent = make_agent(organization=project.organization)
    run = submission.submit(
        by=by, project=project, agent=agent, task=TaskSpec(input={}), key="k" * 16
    ).run
    (claimed,) = dispatch.claim(seat, slots=1)
    started = leases.start(run_id=run.pk, token=claimed.token, worker=make_worker())
    leases.succeed(started, result={})
    make_artifact(run)
    aged(run)
    dead = aged(make_dead_run(project=project))
    schedule = make_schedule(project=project)
    fire = ScheduleFire.objects.create(
        schedule=schedule, fire_at=clock.now(), outcome="submitted", run=run
    )
    news, entries = OutboxEntry.objects.count(), AuditEntry.objects.count()

    assert remove(seat) == 2

    assert not left()
    for model in (RunEvent, Attempt, Artifact, IdempotencyKey):
        assert not model.objects.filter(run=run.pk).exists(), model
    assert not DeadLetter.objects.filter(run=dead.pk).exists()
    fire.refresh_from_db()
    assert (fire.run_id, fire.outcome) == (None, "submitted")
    assert OutboxEntry.objects.count() == news
    assert AuditEntry.objects.count() == entries + 1


def test_the_roles_over_a_run_go_with_it_and_others_stay(seat, project, kept):
    user = make_user(organization=project.organization)
    old, later = over(make_run(project=project)), make_run(project=project)
    make_binding(user, Role.OPERATOR, old)
    stay = {make_binding(user, Role.OPERATOR, later), make_binding(user, Role.VIEWER, project)}

    assert remove(seat) == 1

    assert set(Binding.objects.filter(user=user)) == stay
    assert AuditEntry.objects.get(action="run.remove_ended").detail["roles"] == 1


def test_every_table_that_names_a_run_is_thought_of():
    """What is only there while a run is open never stands in the way."""
    of_open_runs = {
        "runs_ready", "runs_scheduled", "runs_waiting", "runs_lease", "runs_deadline",
    }  # fmt: skip
    fields = Run._meta.get_fields(include_hidden=True)
    naming = {
        field.related_model._meta.db_table
        for field in fields
        if field.auto_created and not field.concrete
    }

    assert {name for name in naming - of_open_runs if name not in removal.SQL["remove"]} == set()


def test_each_organization_has_its_own_time(seat, project, kept, settings):
    settings.AOS_RUN_DAYS = 10
    other, for_ever = make_project(), make_project()
    removal.keep_for(by=make_actor(Role.OWNER, organization=for_ever.organization), days=0)
    mine = over(make_run(project=project), days_ago=20)
    over(make_run(project=other), days_ago=20)
    always = over(make_run(project=for_ever), days_ago=20)

    assert remove(seat) == 1
    assert left() == {mine.pk, always.pk}


def test_what_was_run_again_forgets_the_run_it_was_made_of(seat, project, kept):
    by = make_actor(organization=project.organization)
    first = over(make_run(project=project, by=by))
    again = submission.rerun(by=by, run=first).run

    assert remove(seat) == 1
    again.refresh_from_db()
    assert again.rerun_of_id is None


def test_a_requeued_run_goes_after_the_dead_one_it_took_the_place_of(seat, project, kept):
    """The letter is settled and must not be touched: it goes first."""
    by = make_actor(organization=project.organization)
    dead = make_dead_run(project=project)
    new = control.requeue(by=by, run=dead).run
    aged(over(new))
    Run.objects.filter(pk=dead.pk).update(finished_at=clock.now())

    assert remove(seat) == 0
    aged(dead)
    assert remove(seat) == 2
    assert not left()


# --- what stays -----------------------------------------------------------------------------------


def test_an_open_run_stays_however_long_its_queue_is_paused(seat, project, kept):
    run = aged(make_run(project=project), days_ago=9999)
    by = make_actor(Role.ADMIN, organization=project.organization)
    queues.set_paused(by=by, queue="default", priority=Priority.NORMAL, paused=True)

    assert remove(seat) == 0
    assert RunEvent.objects.filter(run=run).exists()


def dependent(project):
    """An ended run that an open one needs, and that one."""
    needed = make_run(project=project)
    waiting = make_run(
        project=project, depends_on=(Need(run=needed.public_id, on_failure=OnFailure.RUN),)
    )
    needed.refresh_from_db()
    return over(needed), waiting


def test_what_an_open_run_depends_on_stays_until_that_one_is_gone(seat, project, kept):
    _, waiting = dependent(project)

    assert remove(seat) == 0
    over(waiting)
    assert remove(seat) == 2
    assert not left()
    assert not Dependency.objects.exists()


def test_without_the_look_at_dependents_it_would_go(seat, project, kept, monkeypatch):
    needed, waiting = dependent(project)
    blind = removal.SQL["remove"].replace("run.linked AND EXISTS", "false AND EXISTS")
    monkeypatch.setattr(removal, "SQL", {**removal.SQL, "remove": blind})

    assert remove(seat) == 1
    assert needed.pk not in left()
    assert waiting.pk in left()


@pytest.mark.parametrize("open_one", ["the parent", "a child"])
def test_of_a_tree_nothing_goes_while_a_part_of_it_is_open(seat, project, kept, open_one):
    parent, child, sibling = family(project)
    still = parent if open_one == "the parent" else sibling
    for run in {parent, child, sibling} - {still}:
        finish(run)

    assert remove(seat) == 0
    finish(still)
    assert remove(seat) == 3
    assert not left()
    assert not ChildRun.objects.exists()


def family(project):
    """A run with two children, all of them open."""
    parent, child, sibling = (aged(make_run(project=project)) for _ in range(3))
    with unwatched():
        for each in (child, sibling):
            ChildRun.objects.create(
                run=each, parent=parent, root=parent, depth=1, on_parent_end=OnParentEnd.LEAVE
            )
    return parent, child, sibling


def finish(run):
    """End it long ago, by itself: cancelling would take the others along."""
    run.refresh_from_db()
    lifecycle.close_waiting(
        [(lifecycle.lock(run.pk), Failure(code="x", detail="X."))], RunState.EXPIRED
    )
    aged(run)


# --- how ------------------------------------------------------------------------------------------


def test_batches_are_small_and_each_leaves_its_entry(seat, project, kept, monkeypatch):
    monkeypatch.setattr(removal, "BATCH", 2)
    for _ in range(5):
        over(make_run(project=project))
    aged(make_run(project=project))

    assert remove(seat) == 5

    entries = AuditEntry.objects.filter(action="run.remove_ended")
    assert sorted(entry.detail["count"] for entry in entries) == [1, 2, 2]
    assert {entry.detail["days"] for entry in entries} == {DAYS}


def test_it_stops_between_two_batches_when_it_is_told_to(seat, project, kept, monkeypatch):
    monkeypatch.setattr(removal, "BATCH", 2)
    for _ in range(6):
        over(make_run(project=project))
    answers = iter([False, False, *[True] * 9])

    assert remove(seat, stop=lambda: next(answers)) == 2
    assert len(left()) == 4


def test_it_looks_no_further_than_what_may_be_due(seat, project, kept, monkeypatch):
    """Thousands of young runs behind an old one cost one look."""
    monkeypatch.setattr(removal, "BATCH", 3)
    over(make_run(project=project))
    for _ in range(9):
        over(make_run(project=project), days_ago=1)
    looks, fetch = [], removal.sql.fetch
    monkeypatch.setattr(removal.sql, "fetch", lambda *a: looks.append(a[0]) or fetch(*a))

    assert remove(seat) == 1
    # Twice: a second time because something went the first time.
    assert looks.count(removal.SQL["window"]) == 2


@pytest.mark.parametrize("sabotaged", [False, True], ids=["as it is", "sabotaged"])
def test_a_deposed_leader_removes_nothing(seat, project, kept, monkeypatch, sabotaged):
    over(make_run(project=project))
    leadership.leave(seat)
    leadership.take("another")
    if sabotaged:
        monkeypatch.setattr(leadership, "require", lambda _: None)
        assert remove(seat) == 1
        return

    with pytest.raises(SeatLost):
        remove(seat)
    assert Run.objects.count() == 1


# --- who decides ----------------------------------------------------------------------------------


def test_an_owner_decides_and_it_is_recorded_once(owner):
    removal.keep_for(by=owner, days=90)
    removal.keep_for(by=owner, days=90)
    removal.keep_for(by=owner, days=30)
    removal.keep_as_platform(by=owner)
    removal.keep_as_platform(by=owner)

    entries = AuditEntry.objects.filter(action__startswith="retention.").order_by("id")
    assert [(entry.action, entry.detail["changes"]) for entry in entries] == [
        ("retention.set", {"run_days": [0, 90], "own": [False, True]}),
        ("retention.set", {"run_days": [90, 30]}),
        ("retention.remove", {"run_days": [30, 0], "own": [True, False]}),
    ]
    assert not Retention.objects.exists()


def test_an_admin_does_not_decide(project):
    by = make_actor(Role.ADMIN, organization=project.organization)

    with pytest.raises(NotAllowed):
        removal.keep_for(by=by, days=1)
    with pytest.raises(NotAllowed):
        removal.keep_as_platform(by=by)


@pytest.mark.parametrize("days", [-1, 36_501])
def test_a_time_that_is_none_is_refused(owner, days):
    with pytest.raises(Invalid):
        removal.keep_for(by=owner, days=days)


def test_the_api_tells_and_takes_the_time(settings):
    settings.AOS_RUN_DAYS = 365
    owner = make_actor(Role.OWNER, organization=make_organization())
    client = api(owner.user)

    assert client.get("/api/retention").json() == {
        "run_days": 365, "own": False, "platform_days": 365,
    }  # fmt: skip
    assert client.put("/api/retention", {"run_days": 30}).json()["run_days"] == 30
    assert client.get("/api/retention").json()["own"] is True
    assert problem(client.put("/api/retention", {"run_days": -1}))["status"] == 422
    assert problem(client.put("/api/retention", {"days": 3}))["status"] == 422
    assert client.delete("/api/retention").json()["run_days"] == 365


def test_the_queue_page_tells_the_time_and_only_owners_change_it():
    cast = make_cast()
    owner, admin = session(cast.olivia), session(cast.adam)

    assert owner.post("/queue/retention", {"days": "45", "sure": "yes"}).status_code == 302
    assert "45 days" in admin.get("/queue").content.decode()
    assert 'name="days"' not in admin.get("/queue").content.decode()
    assert 'name="days"' in owner.get("/queue").content.decode()
    assert admin.post("/queue/retention", {"days": "1"}).status_code == 403
    owner.post("/queue/retention", {"days": "soon"})
    assert removal.kept(cast.organization.pk).run_days == 45
    owner.post("/queue/retention", {"days": ""})
    assert not removal.kept(cast.organization.pk).own


def test_a_shorter_time_is_asked_for_twice_on_the_page_and_a_longer_one_is_not():
    cast = make_cast()
    owner = session(cast.olivia)
    old = make_run(by=Actor(user=cast.olivia), project=make_project(organization=cast.organization))
    with transaction.atomic():
        lifecycle.close(lifecycle.lock(old.pk), RunState.CANCELLED)
    Run.objects.filter(pk=old.pk).update(finished_at=clock.now() - timedelta(days=60))

    asked = owner.post("/queue/retention", {"days": "45"})

    assert "1 run ended longer ago and will be removed" in asked.content.decode()
    assert not removal.kept(cast.organization.pk).own
    owner.post("/queue/retention", {"days": "45", "sure": "yes"})
    assert owner.post("/queue/retention", {"days": "90"}).status_code == 302
    assert removal.kept(cast.organization.pk).run_days == 90
    assert owner.post("/queue/retention", {"days": "89"}).status_code == 200
