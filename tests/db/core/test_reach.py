"""What a list shows is what one may see, one by one: the filter in SQL and the question to the matrix agree."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from apps.core import clock
from apps.identity import models as identity
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import Binding, Department
from apps.identity.types import Role, Scope
from apps.projects.models import Project
from apps.runs.models import Run
from tests.factories import (
    make_actor,
    make_agent,
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


@pytest.mark.slow
@pytest.mark.parametrize("limit", [500, 0], ids=["ids in a list", "ids left to PostgreSQL"])
def test_lists_and_the_matrix_agree_on_every_pair(runs, dice, monkeypatch, limit):
    monkeypatch.setattr(identity, "_LISTED", limit)
    homes = [runs[0].project.organization, runs[-1].project.organization]
    differ, seen = [], 0
    for number in range(PEOPLE):
        user = make_user(organization=homes[number % 2], is_active=number % 10 != 9)
        bind_at_random(user, runs, dice)
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


def may(user, action, run):
    return run.organization_id == user.organization_id and policy.allows(
        Actor(user=user),
        action,
        project_id=run.project_id,
        agent_id=run.agent_version.agent_id,
        run_id=run.public_id,
    )
