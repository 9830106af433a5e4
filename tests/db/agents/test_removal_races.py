"""What is made for an agent at the moment of its deletion: it goes with the agent, or is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from apps.agents.services import removal
from apps.core.errors import NotFound
from apps.identity.models import Binding
from apps.identity.services import bindings
from apps.identity.types import Place, Role, Scope
from apps.runs.limit_models import Limit
from apps.runs.models import Schedule
from apps.runs.services import limits, schedules
from tests.factories import make_actor, make_agent, make_project, make_schedule, make_user
from tests.support.platform import wait_for
from tests.support.threads import apart

pytestmark = pytest.mark.django_db(transaction=True)


class Scene:
    """An owner who deletes an agent, and somebody who makes something for it."""

    def __init__(self):
        self.by = make_actor(Role.OWNER)
        self.home = self.by.user.organization
        self.agent = make_agent(organization=self.home)
        self.project = make_project(organization=self.home)
        self.elsewhere = make_schedule(project=self.project)
        self.vera = make_user(organization=self.home)

    def delete(self):
        removal.remove(by=self.by, agent=self.agent)

    def make_schedule(self):
        make_schedule(by=self.by, project=self.project, agent=self.agent)

    def move_schedule(self):
        schedules.change(by=self.by, schedule=self.elsewhere, agent=self.agent)

    def set_limit(self):
        limits.put(by=self.by, about=limits.of_agent(self.agent), cap=1)

    def pause(self):
        limits.set_agent_paused(by=self.by, agent=self.agent, paused=True)

    def grant(self):
        place = Place(
            scope=Scope.AGENT, id=self.agent.pk, name=self.agent.slug, agent_id=self.agent.pk
        )
        bindings.grant(by=self.by, subject=self.vera, role=Role.VIEWER, place=place)

    def left(self):
        """How many rows would act for the agent."""
        return (
            Schedule.objects.filter(agent=self.agent).count()
            + Limit.objects.filter(agent=self.agent).count()
            + Binding.objects.filter(scope_id=self.agent.pk).count()
        )


ACTS = {
    "make_schedule": "runs_schedule",
    "move_schedule": "runs_schedule",
    "set_limit": "runs_limit",
    "pause": "runs_limit",
    "grant": "identity_binding",
}


@pytest.fixture
def scene():
    return Scene()


@pytest.mark.parametrize("act", ACTS)
def test_what_is_made_while_the_agent_is_being_deleted_is_refused(scene, act):
    error = at_the_same_moment(scene.delete, getattr(scene, act))

    assert isinstance(error, NotFound)
    assert scene.left() == 0


@pytest.mark.parametrize("act", ACTS)
def test_what_was_made_just_before_goes_with_the_agent(scene, act):
    error = at_the_same_moment(getattr(scene, act), scene.delete)

    assert error is None
    assert scene.left() == 0


@pytest.mark.parametrize("act", ACTS)
def test_without_the_trigger_it_would_stay(scene, act):
    """The sabotage: the foreign key waits as well, and lets it through, for the agent's row is there."""
    try:
        arm(ACTS[act], "DISABLE")
        at_the_same_moment(scene.delete, getattr(scene, act))
        left = scene.left()
    finally:
        arm(ACTS[act], "ENABLE")

    assert left == 1


def test_nothing_can_be_made_for_it_afterwards(scene):
    scene.delete()

    for act in ACTS:
        with pytest.raises(NotFound):
            getattr(scene, act)()
    assert scene.left() == 0


def at_the_same_moment(first, second):
    """Do ``first``, let ``second`` begin, and commit when it waits or is through.

    Returns the error of the second, if any.
    """
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            first()
            outcome = pool.submit(apart, second)
            wait_for("the second to wait or be done", lambda: outcome.done() or somebody_waits())
        return outcome.exception(timeout=30)


def somebody_waits():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks"
            " WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
        )
        return cursor.fetchone()[0]


def arm(table, how):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass"
            " AND tgname LIKE 'agents_refuse_removed%%'",
            [table],
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f"ALTER TABLE {table} {how} TRIGGER {name}")
