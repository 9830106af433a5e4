"""What somebody holds is read once in a request, and never believed after something changed."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.core import memory
from apps.identity import policy, watch
from apps.identity.actor import Actor
from apps.identity.models import Binding
from apps.identity.services import bindings, departments, people
from apps.identity.types import Role
from tests.faces import api, key, session
from tests.factories import (
    make_agent,
    make_binding,
    make_cast,
    make_department,
    make_project,
    make_run,
    make_user,
    unwatched,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast()


def reads_of_roles(queries):
    return [one for one in queries if "SELECT role, scope, scope_id" in one["sql"]]


@pytest.mark.parametrize(
    "path", ["/", "/runs", "/runs/{run}", "/queue", "/schedules", "/audit", "/admin/"]
)
def test_a_page_reads_the_roles_of_its_visitor_once(cast, path):
    run = make_run(project=make_project(organization=cast.organization))
    browser = session(cast.olivia)
    address = path.format(run=run.public_id)
    browser.get(address)

    with CaptureQueriesContext(connection) as queries:
        response = browser.get(address)

    assert response.status_code == 200
    assert len(reads_of_roles(queries)) == 1
    assert not [one for one in queries if one["sql"].startswith("SELECT 1") and asks(one)]


def asks(query):
    return 'FROM "identity_binding"' in query["sql"]


def test_a_submission_reads_them_before_the_act_and_after_it(cast):
    project = make_project(organization=cast.organization)
    agent = make_agent(organization=cast.organization)
    client = api(cast.oscar)
    body = {"project": project.slug, "agent": agent.slug, "input": {}}
    client.post("/api/run", body, format="json", headers=key("first"))

    with CaptureQueriesContext(connection) as queries:
        response = client.post("/api/run", body, format="json", headers=key("second"))

    assert response.status_code == 202
    assert len(reads_of_roles(queries)) == 2


def test_the_next_request_sees_a_withdrawal(cast):
    project = make_project(organization=cast.organization)
    user = make_user(organization=cast.organization)
    held = make_binding(user, Role.VIEWER, project)
    client = api(user)

    before = client.get("/api/projects").json()["results"]
    bindings.revoke(by=Actor(user=cast.olivia), binding=held)
    after = client.get("/api/projects")

    assert [row["slug"] for row in before] == [project.slug]
    assert after.status_code == 403


def grant(owner, user, department):
    bindings.grant(by=owner, subject=user, role=Role.OPERATOR)


def join(owner, user, department):
    departments.add_member(by=owner, department=department, user=user)


@pytest.mark.parametrize("act", [grant, join])
def test_a_request_that_changes_roles_asks_anew(cast, act):
    user = make_user(organization=cast.organization)
    department = make_department(organization=cast.organization)
    make_binding(department, Role.OPERATOR)

    with memory.kept():
        before = policy.allows(Actor(user=user), "run.submit")
        act(Actor(user=cast.olivia), user, department)
        after = policy.allows(Actor(user=user), "run.submit")

    assert (before, after) == (False, True)


def test_a_role_that_was_rolled_back_is_not_remembered(cast):
    user = make_user(organization=cast.organization)

    with memory.kept():
        with transaction.atomic():
            grant(Actor(user=cast.olivia), user, None)
            inside = policy.allows(Actor(user=user), "run.submit")
            transaction.set_rollback(True)
        after = policy.allows(Actor(user=user), "run.submit")

    assert (inside, after) == (True, False)


def test_without_the_forgetting_a_stale_answer_is_given(cast, monkeypatch):
    """The mechanism broken on purpose: the tests above would see it."""
    monkeypatch.setattr(memory, "forget", lambda: None)
    user = make_user(organization=cast.organization)

    with memory.kept():
        policy.allows(Actor(user=user), "run.submit")
        grant(Actor(user=cast.olivia), user, None)

        assert not policy.allows(Actor(user=user), "run.submit")


def test_somebody_who_was_disabled_holds_nothing_at_once(cast):
    with memory.kept():
        assert policy.allows(Actor(user=cast.oscar), "run.submit")
        people.deactivate(by=Actor(user=cast.olivia), user=cast.oscar)
        assert not policy.allows(Actor(user=cast.oscar), "run.submit")


def test_an_open_stream_asks_anew_even_inside_a_request(cast):
    project = make_project(organization=cast.organization)
    user = make_user(organization=cast.organization)
    make_binding(user, Role.VIEWER, project)

    with memory.kept():
        leave = watch.begin(Actor(user=user), "event.read", project_id=project.pk)
        with unwatched():
            Binding.objects.filter(user=user).delete()

        assert not leave.holds()


def test_who_stands_where_is_never_remembered(cast):
    """Services ask it behind a lock, where another request has just changed it."""
    with memory.kept():
        assert policy.allows(Actor(user=cast.olivia), "people.manage")
        with unwatched():
            Binding.objects.filter(user=cast.olivia).delete()

        assert policy.standing(cast.olivia) == policy.highest(cast.olivia) == 0
