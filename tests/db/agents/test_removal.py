"""Deleting an agent: nothing new begins with it, and what was stays."""

from __future__ import annotations

import pytest
from django.urls import reverse

from apps.agents.models import Agent
from apps.agents.services import registry, removal
from apps.core.errors import NotAllowed, NotFound
from apps.events.models import AuditEntry, Event
from apps.events.types import EventType
from apps.identity.models import Binding
from apps.identity.types import Role
from apps.runs.errors import AgentInUse
from apps.runs.limit_models import Limit
from apps.runs.models import Run, Schedule
from apps.runs.services import control, limits, submission
from apps.runs.types import TaskSpec
from tests.faces import api, session
from tests.factories import (
    HELLO,
    make_actor,
    make_agent,
    make_binding,
    make_department,
    make_project,
    make_run,
    make_schedule,
    make_user,
)
from tests.support.stand_in import publish

pytestmark = pytest.mark.django_db


@pytest.fixture
def by():
    return make_actor(Role.OWNER)


@pytest.fixture
def agent(by):
    return make_agent(organization=by.user.organization)


@pytest.fixture
def project(by):
    return make_project(organization=by.user.organization)


def ended(run) -> Run:
    control.cancel(by=make_actor(Role.OWNER, organization=run.project.organization), run=run)
    run.refresh_from_db()
    return run


def test_what_was_deleted_is_found_no_more_and_its_runs_stay(by, agent, project):
    run = ended(make_run(project=project, agent=agent, by=by))
    publish()

    removal.remove(by=by, agent=agent)

    assert not Agent.objects.visible_to(by.user).filter(pk=agent.pk).exists()
    assert Run.objects.visible_to(by.user).get(pk=run.pk).agent_version.agent.title == agent.title
    assert Event.objects.filter(run_id=run.public_id, type=EventType.RECEIPT).exists()
    client = session(by.user)
    assert client.get(reverse("run", args=[run.public_id])).status_code == 200
    assert client.get(reverse("sandbox_script", args=[agent.pk])).status_code == 404
    assert client.get(reverse("sandbox_scripts")).status_code == 200
    assert client.get(reverse("audit")).status_code == 200


def test_nothing_new_begins_with_it(by, agent, project):
    run = ended(make_run(project=project, agent=agent, by=by))
    removal.remove(by=by, agent=agent)
    agent.refresh_from_db()

    with pytest.raises(NotFound):
        submission.submit(by=by, project=project, agent=agent, task=TaskSpec(input={}))
    with pytest.raises(NotFound):
        submission.submit_version(
            by=by, project=project, version=agent.current, task=TaskSpec(input={})
        )
    with pytest.raises(NotFound):
        submission.rerun(by=by, run=run)


def test_it_is_refused_while_runs_of_it_are_not_over(by, agent, project):
    run = make_run(project=project, agent=agent, by=by)

    with pytest.raises(AgentInUse, match="1 of its runs"):
        removal.remove(by=by, agent=agent)
    assert Agent.objects.visible_to(by.user).filter(pk=agent.pk).exists()

    ended(run)
    removal.remove(by=by, agent=agent)
    with pytest.raises(Agent.DoesNotExist):
        removal.remove(by=by, agent=agent)


def test_its_schedules_go_with_it_each_on_record(by, agent, project):
    kept = make_schedule(project=project)
    gone = [make_schedule(project=project, agent=agent, name=name) for name in ("a", "b")]

    removal.remove(by=by, agent=agent)

    assert Schedule.objects.get() == kept
    told = AuditEntry.objects.filter(action="schedule.remove").values_list("resource_id", flat=True)
    assert set(told) == {str(row.pk) for row in gone}
    entry = AuditEntry.objects.get(action="agent.remove")
    assert (entry.resource_id, entry.detail["schedules"]) == (str(agent.pk), 2)


def test_its_limit_and_the_roles_over_it_go_with_it_each_on_record(by, agent, project):
    other = make_agent(organization=by.user.organization)
    vera = make_user(organization=by.user.organization)
    crew = make_department(organization=by.user.organization)
    gone = [make_binding(vera, Role.VIEWER, agent), make_binding(crew, Role.OPERATOR, agent)]
    kept = [make_binding(vera, Role.VIEWER, other), make_binding(vera, Role.VIEWER, project)]
    for limited in (agent, other):
        limits.put(by=by, about=limits.of_agent(limited), cap=2)
    limits.set_agent_paused(by=by, agent=agent, paused=True)

    removal.remove(by=by, agent=agent)

    assert {row.agent for row in Limit.objects.all()} == {other}
    left = Binding.objects.filter(scope_id__in=[agent.pk, other.pk, project.pk])
    assert set(left) == set(kept)
    told = AuditEntry.objects.filter(action="binding.revoke")
    assert {entry.resource_id for entry in told} == {str(row.pk) for row in gone}
    assert {entry.detail["why"] for entry in told} == {"agent deleted"}
    limit = AuditEntry.objects.get(action="limit.remove")
    assert limit.detail["changes"]["cap"] == [2, None]
    detail = AuditEntry.objects.get(action="agent.remove").detail
    assert (detail["limits"], detail["roles"]) == (1, 2)


def test_a_refused_one_keeps_its_schedules(by, agent, project):
    make_schedule(project=project, agent=agent)
    make_run(project=project, agent=agent, by=by)

    with pytest.raises(AgentInUse):
        removal.remove(by=by, agent=agent)

    assert Schedule.objects.count() == 1
    assert not AuditEntry.objects.filter(action__in=["agent.remove", "schedule.remove"]).exists()


def test_its_slug_is_free_again(by, agent):
    removal.remove(by=by, agent=agent)

    again = registry.register(by=by, slug=agent.slug, title="Another")

    assert again.pk != agent.pk


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_who_may_not_manage_agents_deletes_none(agent, role):
    with pytest.raises(NotAllowed):
        removal.remove(by=make_actor(role, organization=agent.organization), agent=agent)


def test_another_organizations_agent_is_not_there(agent):
    with pytest.raises(Agent.DoesNotExist):
        removal.remove(by=make_actor(Role.OWNER), agent=agent)


def test_the_api_deletes_and_says_why_not(by, agent, project):
    run = make_run(project=project, agent=agent, by=by)
    client = api(by.user, "agent:write", "agent:read")

    refused = client.delete(f"/api/agents/{agent.slug}")
    assert (refused.status_code, refused.json()["code"]) == (409, "agent_in_use")
    ended(run)
    assert client.delete(f"/api/agents/{agent.slug}").status_code == 204
    assert client.get(f"/api/agents/{agent.slug}").status_code == 404
    assert client.delete(f"/api/agents/{agent.slug}").status_code == 404


def test_the_page_asks_first_and_says_what_goes(by, agent, project):
    make_schedule(project=project, agent=agent)
    make_binding(make_user(organization=by.user.organization), Role.VIEWER, agent)
    client = session(by.user)
    page = client.get(reverse("sandbox_script", args=[agent.pk])).content.decode()
    assert "1 schedule of it is deleted" in page
    assert "1 role over it is taken" in page

    answer = client.post(reverse("sandbox_script_remove", args=[agent.pk]), follow=True)

    assert f"{agent.title} is deleted. Its runs stay." in answer.content.decode()
    assert not Agent.objects.visible_to(by.user).filter(pk=agent.pk).exists()


def test_the_page_says_that_runs_are_not_over(by, agent, project):
    make_run(project=project, agent=agent, by=by)
    client = session(by.user)

    page = client.get(reverse("sandbox_script", args=[agent.pk])).content.decode()
    assert "1 of its runs is not over." in page
    answer = client.post(reverse("sandbox_script_remove", args=[agent.pk]), follow=True)
    assert "cannot be deleted" in answer.content.decode()
    assert Agent.objects.visible_to(by.user).filter(pk=agent.pk).exists()


def test_the_admin_deletes_it_as_the_service_does(by, agent, project):
    ended(make_run(project=project, agent=agent, by=by))
    client = session(by.user)
    url = reverse("admin:agents_agent_delete", args=[agent.pk])
    assert client.get(url).status_code == 200

    client.post(url, {"post": "yes"})

    agent.refresh_from_db()
    assert agent.removed_at is not None
    assert AuditEntry.objects.filter(action="agent.remove").count() == 1


def test_what_it_was_made_of_stays(by, agent):
    removal.remove(by=by, agent=agent)

    agent.refresh_from_db()
    assert agent.current.spec == HELLO
