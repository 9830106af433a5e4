from __future__ import annotations

import json

import pytest
from django.urls import reverse

from apps.agents.models import Agent
from apps.events.models import AuditEntry
from tests.faces import session
from tests.factories import HELLO, make_agent, make_agent_version, make_cast

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def agent(cast):
    return make_agent(organization=cast.organization, slug="hello")


def draft(client, agent, spec):
    return client.post(
        reverse("admin:agents_agentversion_add"), {"agent": agent.pk, "spec": json.dumps(spec)}
    )


def test_an_agent_is_registered_by_the_service(cast):
    response = session(cast.adam).post(
        reverse("admin:agents_agent_add"),
        {"title": "Fresh", "slug": "fresh", "description": "", "kind": "script"},
    )

    assert response.status_code == 302
    assert Agent.objects.get().organization == cast.organization
    assert AuditEntry.objects.get(action="agent.register").actor_id == cast.adam.pk


def test_a_version_is_drafted_and_its_source_is_readable(cast, agent):
    client = session(cast.adam)
    spec = HELLO | {"files": {"main.py": "print('<b>hello</b>')\n"}}

    drafted = draft(client, agent, spec)
    version = agent.versions.get(number=2)
    page = client.get(reverse("admin:agents_agentversion_change", args=[version.pk]))

    assert drafted.status_code == 302
    assert version.state == "draft"
    assert "print(&#x27;&lt;b&gt;hello&lt;/b&gt;&#x27;)" in page.content.decode()


@pytest.mark.parametrize(
    ("spec", "told"),
    [([1], "The spec is a JSON object."), ({"entry": "x"}, "is a required property")],
)
def test_a_bad_spec_is_told_on_the_form(cast, agent, spec, told):
    response = draft(session(cast.adam), agent, spec)

    assert response.status_code == 200
    assert told in response.content.decode()
    assert agent.versions.count() == 1


def test_a_release_is_confirmed_before_it_happens(cast, agent):
    version = make_agent_version(agent=agent, released=False)
    client = session(cast.adam)
    url = reverse("admin:agents_agentversion_release", args=[version.pk])

    asked = client.get(url)
    before = Agent.objects.get().current_id
    done = client.post(url)

    assert asked.status_code == 200
    assert before != version.pk
    assert done.status_code == 302
    assert Agent.objects.get().current_id == version.pk
    assert AuditEntry.objects.get(action="agent.release").actor_id == cast.adam.pk


def test_a_strangers_version_cannot_be_released(cast):
    theirs = make_agent()
    version = make_agent_version(agent=theirs, released=False)

    response = session(cast.adam).post(
        reverse("admin:agents_agentversion_release", args=[version.pk])
    )

    assert response.status_code == 404
    version.refresh_from_db()
    assert version.state == "draft"


def test_an_agents_words_change_its_address_does_not(cast, agent):
    response = session(cast.adam).post(
        reverse("admin:agents_agent_change", args=[agent.pk]),
        {
            "title": "Better",
            "slug": "stolen",
            "description": "",
            "versions-TOTAL_FORMS": 0,
            "versions-INITIAL_FORMS": 0,
        },
    )

    agent.refresh_from_db()
    assert response.status_code == 302
    assert (agent.title, agent.slug) == ("Better", "hello")
    changed = AuditEntry.objects.get(action="agent.change").detail["changes"]
    assert {name: new for name, (_, new) in changed.items()} == {"title": "Better"}
