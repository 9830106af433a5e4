"""Schedules: who may make them, when they fire, and that each time counts once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from django.db import IntegrityError

from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.models import AuditEntry
from apps.identity.models import Binding, User
from apps.identity.types import Role
from apps.runs.errors import AgentNotReleased
from apps.runs.models import Run, Schedule, ScheduleFire
from apps.runs.services import firing, leadership, schedules
from apps.runs.services.leadership import SeatLost
from apps.runs.types import CatchUp, TaskSpec, Timing
from tests.faces import api, key, problem, session
from tests.factories import (
    HELLO,
    make_actor,
    make_agent,
    make_cast,
    make_project,
    make_schedule,
    unwatched,
)
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db
START = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
EVERY_MINUTE = "* * * * *"


@pytest.fixture
def at(monkeypatch):
    """Set the clock: ``at(minutes)`` after START."""

    def move(minutes=0.0):
        monkeypatch.setattr(clock, "now", lambda: START + timedelta(minutes=minutes))

    move()
    return move


def outcomes(schedule):
    return list(schedule.fires.order_by("fire_at").values_list("outcome", flat=True))


# --- firing ---------------------------------------------------------------------------------------


def test_a_due_schedule_submits_its_task_as_its_person(seat, at):
    schedule = make_schedule(cron="0 7 * * *", task=TaskSpec(input={}, labels={"team": "ops"}))
    at(29.9)
    assert firing.fire(seat) == 0

    at(30)
    assert firing.fire(seat) == 1
    assert firing.fire(seat) == 0

    run = Run.objects.get()
    assert (run.submitted_by, run.labels) == (schedule.submits_as, {"team": "ops"})
    fire = schedule.fires.get()
    assert (fire.run, fire.outcome) == (run, "submitted")
    schedule.refresh_from_db()
    assert schedule.next_at == START + timedelta(days=1, minutes=30)
    entry = AuditEntry.objects.get(action="schedule.fire")
    assert (entry.actor_kind, entry.detail["run"]) == ("platform", str(run.public_id))


@pytest.mark.parametrize(
    ("catch_up", "runs", "noted"),
    [
        (CatchUp.SKIP, 1, ["missed", "submitted"]),
        (CatchUp.ONE, 1, ["submitted"]),
        (CatchUp.ALL, 10, ["submitted"] * 10),
    ],
)
def test_times_that_passed_unseen_are_treated_as_the_schedule_says(seat, at, catch_up, runs, noted):
    schedule = make_schedule(cron=EVERY_MINUTE, catch_up=catch_up)
    at(10)

    firing.fire(seat)

    assert Run.objects.count() == runs
    assert outcomes(schedule) == noted
    schedule.refresh_from_db()
    assert schedule.next_at == START + timedelta(minutes=11)


def test_a_time_noticed_long_after_is_missed(seat, at):
    schedule = make_schedule(cron="0 7 * * *")
    at(60)

    firing.fire(seat)

    assert not Run.objects.exists()
    assert outcomes(schedule) == ["missed"]


def test_a_long_outage_is_caught_up_in_bounded_steps(seat, at):
    schedule = make_schedule(cron=EVERY_MINUTE, catch_up=CatchUp.ALL)
    at(50)

    counts = [firing.fire(seat) for _ in range(4)]

    assert counts == [20, 20, 10, 0]
    times = list(schedule.fires.order_by("fire_at").values_list("fire_at", flat=True))
    assert times == [START + timedelta(minutes=minute) for minute in range(1, 51)]


def test_a_paused_schedule_rests_and_a_pause_is_not_caught_up(seat, at):
    schedule = make_schedule(cron=EVERY_MINUTE, catch_up=CatchUp.ALL)
    by = make_actor(Role.OPERATOR, organization=schedule.project.organization)
    schedules.pause(by=by, schedule=schedule)
    at(10)
    assert firing.fire(seat) == 0

    schedules.resume(by=by, schedule=schedule)
    at(11)
    assert firing.fire(seat) == 1
    assert Run.objects.get().submitted_by == by.user


@pytest.mark.parametrize("loss", ["role", "account"])
def test_a_schedule_whose_person_lost_the_right_pauses_itself(seat, at, loss):
    schedule = make_schedule(cron=EVERY_MINUTE)
    with unwatched():
        if loss == "role":
            Binding.objects.filter(user=schedule.submits_as).delete()
        else:
            User.objects.filter(pk=schedule.submits_as_id).update(is_active=False)
    at(1)

    firing.fire(seat)

    schedule.refresh_from_db()
    assert schedule.paused_at is not None
    assert schedule.submits_as.username in schedule.pause_reason
    assert outcomes(schedule) == ["refused"]
    assert not Run.objects.exists()
    assert AuditEntry.objects.get(action="schedule.pause").actor_name == "engine"


def test_a_refused_task_is_noted_and_the_schedule_goes_on(seat, at):
    agent = make_agent()
    schedule = make_schedule(
        cron=EVERY_MINUTE, agent=agent, project=make_project(organization=agent.organization)
    )
    with unwatched():
        type(agent).objects.update(current=None)
    at(1)
    firing.fire(seat)
    at(2)
    firing.fire(seat)

    assert outcomes(schedule) == ["refused", "refused"]
    assert "no released version" in schedule.fires.first().detail


def test_a_deposed_leader_fires_nothing(seat, at):
    make_schedule(cron=EVERY_MINUTE)
    at(1)
    leadership.leave(seat)
    leadership.take("other")

    with pytest.raises(SeatLost):
        firing.fire(seat)
    assert not Run.objects.exists()


def test_a_time_counts_once_in_the_database(at):
    schedule = make_schedule()
    fires = [ScheduleFire(schedule=schedule, fire_at=START, outcome="submitted") for _ in range(2)]

    with pytest.raises(IntegrityError, match="runs_schedule_fire_once"):
        ScheduleFire.objects.bulk_create(fires)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("sabotaged", [False, True], ids=["as built", "without seat and lock"])
def test_two_engines_at_the_same_moment_submit_once(seat, at, monkeypatch, sabotaged):
    """With seat and row lock taken away, the unique index still lets one of them commit."""
    schedule = make_schedule(cron=EVERY_MINUTE)
    at(1)
    together = Barrier(2)
    submit = firing._submit

    def meet(*args):
        together.wait(timeout=10)
        return submit(*args)

    if sabotaged:
        monkeypatch.setattr(leadership, "require", lambda _: None)
        monkeypatch.setattr(
            type(Schedule.objects.all()), "select_for_update", lambda rows, **_: rows
        )
        monkeypatch.setattr(firing, "_submit", meet)

    done = at_once([lambda: firing.fire(seat)] * 2, errors=IntegrityError)

    fired = sorted(each for each in done if isinstance(each, int))
    assert fired == ([1] if sabotaged else [0, 1])
    assert Run.objects.count() == schedule.fires.count() == 1


# --- making and changing --------------------------------------------------------------------------


def test_a_viewer_makes_none(at):
    project = make_project()
    viewer = make_actor(Role.VIEWER, organization=project.organization)

    with pytest.raises(NotAllowed):
        make_schedule(project=project, by=viewer)


def test_a_name_is_taken_once_in_a_project(at):
    first = make_schedule(name="Mornings")

    with pytest.raises(Conflict):
        make_schedule(name="Mornings", project=first.project)
    make_schedule(name="Mornings")


def test_the_task_is_checked_when_it_is_made(at):
    project = make_project()
    wants = HELLO | {"input_schema": {"type": "object", "required": ["rows"]}}
    strict = make_agent(organization=project.organization, spec=wants)
    draft = make_agent(organization=project.organization, released=False)

    with pytest.raises(Invalid, match="rows"):
        make_schedule(project=project, agent=strict)
    with pytest.raises(AgentNotReleased):
        make_schedule(project=project, agent=draft)
    with pytest.raises(Invalid, match="cron"):
        make_schedule(project=project, cron="often")
    assert not Schedule.objects.exists()


def test_whoever_changes_it_answers_for_its_runs(at):
    schedule = make_schedule()
    other = make_actor(Role.OPERATOR, organization=schedule.project.organization)

    changed = schedules.change(by=other, schedule=schedule, timing=Timing(cron="0 9 * * *"))

    assert changed.submits_as == other.user
    assert changed.next_at == START + timedelta(hours=2, minutes=30)
    recorded = AuditEntry.objects.get(action="schedule.change").detail["changes"]
    assert recorded["cron"] == ["0 7 * * *", "0 9 * * *"]
    assert set(recorded) == {"cron", "submits_as"}


def test_a_deleted_schedule_leaves_its_runs(seat, at):
    schedule = make_schedule(cron=EVERY_MINUTE)
    at(1)
    firing.fire(seat)
    by = make_actor(Role.OPERATOR, organization=schedule.project.organization)

    schedules.remove(by=by, schedule=schedule)

    assert not ScheduleFire.objects.exists()
    assert Run.objects.count() == 1


# --- over HTTP ------------------------------------------------------------------------------------


def test_the_whole_life_of_a_schedule_over_the_api(at):
    oscar = make_actor(Role.OPERATOR)
    project = make_project(organization=oscar.user.organization, slug="demo")
    make_agent(organization=project.organization, slug="hello")
    client = api(oscar.user)
    body = {
        "project": "demo",
        "agent": "hello",
        "name": "Mornings",
        "cron": "0 7 * * MON-FRI",
        "timezone": "Europe/Athens",
        "task": {"input": {}, "priority": "bulk", "concurrency_key": "bank"},
    }

    made = client.post("/api/schedules", body, format="json")

    assert made.status_code == 201, made.content
    at_path = made.headers["Location"]
    told = made.json()
    assert told["in_words"] == "At 07:00 on Monday through Friday"
    assert told["next_times"][0] == "2026-11-24T05:00:00Z"
    assert len(told["next_times"]) == 5
    assert told["task"].items() >= body["task"].items()
    listed = client.get("/api/schedules?project=demo&paused=false").json()["results"]
    assert [row["id"] for row in listed] == [told["id"]]
    changed = client.patch(at_path, {"timezone": "UTC"}, format="json").json()
    assert (changed["cron"], changed["next_times"][0]) == (body["cron"], "2026-11-23T07:00:00Z")
    assert client.post(f"{at_path}/pause").json()["next_times"] == []
    assert client.post(f"{at_path}/resume").json()["paused_at"] is None
    first, again = (client.post(f"{at_path}/run", headers=key("one")) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 200)
    assert client.get(f"{at_path}/fires").json()["results"] == []
    assert client.delete(at_path).status_code == 204
    assert client.get(at_path).status_code == 404


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"cron": "every day"}, "cron"),
        ({"timezone": "Nowhere"}, "timezone"),
        ({"catch_up": "perhaps"}, "catch_up"),
        ({"task": {"input": {}, "run_at": "2030-01-01T00:00Z"}}, "task.run_at"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_made(at, wrong, field):
    oscar = make_actor(Role.OPERATOR)
    project = make_project(organization=oscar.user.organization, slug="demo")
    make_agent(organization=project.organization, slug="hello")
    body = {"project": "demo", "agent": "hello", "name": "N", "cron": "0 7 * * *"}

    refused = api(oscar.user).post(
        "/api/schedules", body | {"task": {"input": {}}} | wrong, format="json"
    )

    assert refused.status_code == 422
    assert field in {error["field"] for error in problem(refused)["params"]["errors"]}
    assert not Schedule.objects.exists()


@pytest.mark.parametrize("act", ["pause", "resume", "remove", "run"])
def test_a_viewers_click_changes_nothing(act):
    cast = make_cast()
    schedule = make_schedule(project=make_project(organization=cast.organization))
    before = Schedule.objects.values().get()

    answer = session(cast.vera).post(f"/schedules/{schedule.pk}/{act}")

    # Running it is refused with a word on its page.
    assert answer.status_code == (302 if act == "run" else 403)
    assert Schedule.objects.values().get() == before
    assert not Run.objects.exists()


def test_a_strangers_schedule_has_no_page():
    cast = make_cast()
    schedule = make_schedule(project=make_project(organization=cast.organization))

    for page in ("", "/edit"):
        assert session(cast.sam).get(f"/schedules/{schedule.pk}{page}").status_code == 404
    for act in ("pause", "resume", "remove", "run"):
        assert session(cast.sam).post(f"/schedules/{schedule.pk}/{act}").status_code == 404
