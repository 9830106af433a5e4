"""What a list shows is what one may see, one by one: the filter in SQL and the question to the matrix agree."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.core import clock, memory
from apps.identity import holdings, policy
from apps.identity.actor import Actor
from apps.identity.matrix import MATRIX
from apps.identity.models import Binding, Department
from apps.identity.types import Role, Scope
from apps.projects.models import Project
from apps.runs.models import Run
from tests.faces import api
from tests.factories import (
    make_actor,
    make_agent,
    make_binding,
    make_organization,
    make_project,
    make_run,
    make_user,
    unwatched,
)

pytestmark = pytest.mark.django_db

# Each person is asked about each run and its project: 5,000 pairs.
PEOPLE, RUNS = 50, 50


@pytest.fixture
def dice():
    return random.Random(20261121)


@pytest.fixture
def runs():
    """Runs of two organizations, spread over projects and agents."""
    made = []
    for _ in range(2):
        home = make_organization()
        by = make_actor(organization=home)
        projects = [make_project(organization=home) for _ in range(4)]
        agents = [make_agent(organization=home) for _ in range(3)]
        made += [
            make_run(project=projects[n % 4], agent=agents[n % 3], by=by) for n in range(RUNS // 2)
        ]
    return made


@unwatched()
def bind_at_random(user, runs, dice):
    """Up to five roles over this and that, some of them ended, some through a department."""
    home = user.organization
    mine = [run for run in runs if run.organization_id == home.pk]
    department = Department.objects.create(organization=home, name=f"of {user.username}")
    if dice.random() < 0.7:
        user.departments.add(department)
    for _ in range(dice.randrange(6)):
        run = dice.choice(mine)
        scope, place = dice.choice(
            [(Scope.PROJECT, run.project_id), (Scope.RUN, run.public_id)] * 3
            + [(Scope.AGENT, run.agent_version.agent_id)] * 2
            + [(Scope.ORGANIZATION, home.pk)]
        )
        holder = dice.choice([{"user": user}, {"department": department}])
        ends = dice.choice([None, None, timedelta(hours=1), timedelta(hours=-1)])
        Binding.objects.update_or_create(
            **{"user": None, "department": None} | holder,
            scope=scope,
            scope_id=place,
            defaults={
                "organization": home,
                "role": dice.choice(list(Role)),
                "expires_at": ends and clock.now() + ends,
            },
        )


@pytest.fixture
def people(runs, dice):
    homes = [runs[0].project.organization, runs[-1].project.organization]
    made = []
    for number in range(PEOPLE):
        user = make_user(organization=homes[number % 2], is_active=number % 10 != 9)
        bind_at_random(user, runs, dice)
        made.append(user)
    return made


# With the lower limits nearly all hold "very many", a few of them over wider places as well.
@pytest.mark.slow
@pytest.mark.parametrize("limit", [500, 1, 0])
def test_lists_and_the_matrix_agree_on_every_pair(runs, people, monkeypatch, limit):
    monkeypatch.setattr(holdings, "_LISTED", limit)
    differ, seen = [], 0
    for user in people:
        listed = set(Run.objects.visible_to(user))
        projects = set(Project.objects.visible_to(user))
        for run in runs:
            if may(user, "run.read", run) != (run in listed):
                differ.append(f"{user}: {run.public_id}")
            if may(user, "project.read", run) != (run.project in projects):
                differ.append(f"{user}: {run.project}")
        seen += len(listed)

    assert differ == []
    assert 0 < seen < PEOPLE * len(runs)


def test_what_a_request_remembers_answers_like_the_database(runs, people):
    """Every action of the matrix, asked of each person about places of all kinds, both ways."""
    homes = {runs[0].organization_id, runs[-1].organization_id}
    places = [{}, *(run.place for run in runs[:: RUNS // 10])]
    places += [{"project_id": run.project_id} for run in runs[:: RUNS // 5]]
    places += [{"agent_id": run.agent_version.agent_id} for run in runs[:: RUNS // 5]]

    def answers():
        for user in people:
            by = Actor(user=user)
            for action in MATRIX:
                yield policy.may_enter(by, action)
                yield from (policy.allows(by, action, **place) for place in places)

    assert len(homes) == 2
    asked = list(answers())
    with memory.kept(), CaptureQueriesContext(connection) as queries:
        remembered = list(answers())

    assert remembered == asked
    assert 0 < sum(asked) < len(asked)
    assert len(queries) <= len(people)


@pytest.mark.parametrize("wide", [False, True], ids=["runs alone", "and a project"])
def test_of_very_many_single_runs_each_page_is_the_newest_that_are_left(runs, wide, monkeypatch):
    monkeypatch.setattr(holdings, "_LISTED", 2)
    mine = [run for run in runs if run.organization_id == runs[0].organization_id]
    project = mine[0].project
    user = make_user(organization=project.organization)
    for run in mine[1::2]:
        make_binding(user, Role.VIEWER, run)
    if wide:
        make_binding(user, Role.VIEWER, project)
    bound = {run.pk for run in mine[1::2]}
    expected = [run for run in mine if run.pk in bound or (wide and run.project == project)]
    expected.sort(key=lambda run: -run.pk)

    client, cursor, listed = api(user), "", []
    while cursor is not None:
        answer = client.get("/api/runs", {"limit": 3} | ({"cursor": cursor} if cursor else {}))
        listed += [row["id"] for row in answer.json()["results"]]
        cursor = answer.json()["next"]
    states = client.get("/api/runs", {"state": "queued", "limit": 200}).json()["results"]

    assert listed == [str(run.public_id) for run in expected]
    assert [row["id"] for row in states] == listed


def pages(rows, size):
    """All pages of a list, as a client with a cursor gets them."""
    below = rows
    while page := list(below.newest(size)):
        yield page
        below = rows.filter(pk__lt=page[-1].pk)


def narrowings(runs, dice):
    """Nothing, and two of the conditions that lists are narrowed by, one of them over a join."""
    one, other = dice.sample(runs, 2)
    yield {}
    yield {"project": one.project_id, "pk__lte": other.pk}
    yield {"agent_version__agent__slug": one.agent_version.agent.slug, "state": "queued"}


@pytest.mark.parametrize("limit", [500, 1, 0])
def test_pages_are_those_of_the_plain_filter(runs, people, dice, monkeypatch, limit):
    monkeypatch.setattr(holdings, "_LISTED", limit)
    seen_in_two_ways = 0
    for user in people:
        visible = Run.objects.visible_to(user).select_related("project", "agent_version__agent")
        seen_in_two_ways += bool(visible.ways)
        for narrow in narrowings(runs, dice):
            plain = [run.pk for run in visible.filter(**narrow).order_by("-pk")]
            size = dice.randrange(1, 8)
            found = [[run.pk for run in page] for page in pages(visible.filter(**narrow), size)]

            assert found == [plain[at : at + size] for at in range(0, len(plain), size)]
    assert (seen_in_two_ways > 3) == (limit < 500)


@pytest.mark.parametrize("missing", [0, 1])
def test_pages_by_one_way_alone_are_not_those_of_the_plain_filter(runs, monkeypatch, missing):
    monkeypatch.setattr(holdings, "_LISTED", 1)
    user = make_user(organization=runs[0].project.organization)
    for place in (runs[0], runs[5], runs[6].project):
        make_binding(user, Role.VIEWER, place)
    visible = Run.objects.visible_to(user)
    plain = list(visible)
    assert list(visible.newest(50)) == plain

    visible.ways = (visible.ways[missing],) * 2

    assert set(visible.newest(50)) < set(plain)


def test_runs_that_are_seen_or_something_else_have_no_newest(runs, monkeypatch):
    """The condition that is replaced is not one of the query's own any more: refused, not left out."""
    monkeypatch.setattr(holdings, "_LISTED", 1)
    user = make_user(organization=runs[0].project.organization)
    for place in (runs[0], runs[5], runs[6].project):
        make_binding(user, Role.VIEWER, place)
    mixed = Run.objects.visible_to(user) | Run.objects.filter(state="failed")

    with pytest.raises(ValueError, match="not in list"):
        mixed.newest(5)


def may(user, action, run):
    return run.organization_id == user.organization_id and policy.allows(
        Actor(user=user),
        action,
        project_id=run.project_id,
        agent_id=run.agent_version.agent_id,
        run_id=run.public_id,
    )
