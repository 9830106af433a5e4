from __future__ import annotations

from uuid import uuid4

import pytest

from apps.agents.models import Agent
from apps.events.models import AuditEntry
from tests.faces import api, problem
from tests.factories import HELLO, make_agent, make_agent_version, make_cast

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def agent(cast):
    return make_agent(organization=cast.organization, slug="hello")


def test_an_agent_goes_from_registration_to_release(cast):
    client = api(cast.adam)

    registered = client.post("/api/agents", {"slug": "fresh", "title": "Fresh"})
    drafted = client.post("/api/agents/fresh/versions", {"spec": HELLO})
    released = client.post("/api/agents/fresh/release", {"version": 1})

    assert registered.status_code == drafted.status_code == 201
    assert registered.json()["current"] is None
    assert registered.json()["input_schema"] is None
    assert drafted.json()["state"] == "draft"
    assert released.status_code == 200
    assert released.json()["current"] == 1
    assert client.get(drafted["Location"]).json()["released_by"] == cast.adam.username
    actions = AuditEntry.objects.order_by("id").values_list("action", flat=True)
    assert list(actions)[-3:] == ["agent.register", "agent.draft", "agent.release"]


def test_releasing_an_older_version_rolls_back(cast, agent):
    make_agent_version(agent=agent)
    client = api(cast.adam)

    forward = client.post("/api/agents/hello/release", {"version": 2})
    back = client.post("/api/agents/hello/release", {"version": 1})

    assert (forward.json()["current"], back.json()["current"]) == (2, 1)


def test_an_agent_says_what_input_it_takes(cast):
    schema = {"type": "object", "required": ["rows"]}
    make_agent(organization=cast.organization, slug="picky", spec=HELLO | {"input_schema": schema})

    body = api(cast.vera).get("/api/agents/picky").json()

    assert body["input_schema"] == schema


def test_versions_are_listed_without_their_files_and_read_with_them(cast, agent):
    make_agent_version(agent=agent, released=False)
    client = api(cast.vera)

    listed = client.get("/api/agents/hello/versions").json()["results"]
    read = client.get(f"/api/agents/{agent.pk}/versions/1").json()

    assert [(item["number"], item["state"]) for item in listed] == [(2, "draft"), (1, "released")]
    assert "spec" not in listed[0]
    assert read["spec"] == HELLO


def test_versions_go_on_where_the_cursor_points(cast, agent):
    for _ in range(3):
        make_agent_version(agent=agent)
    client = api(cast.vera)

    page = client.get("/api/agents/hello/versions?limit=3").json()
    rest = client.get("/api/agents/hello/versions", {"cursor": page["next"]}).json()

    assert [item["number"] for item in page["results"] + rest["results"]] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec"),
        ({"entry": "other.py", "files": {"main.py": ""}}, "spec.entry"),
        ({"entry": "../x", "files": {"../x": ""}}, "spec.files.../x"),
        (HELLO | {"timeout_s": 0}, "spec.timeout_s"),
        (HELLO | {"shell": True}, "spec"),
        (HELLO | {"input_schema": {"type": "nonsense"}}, "spec.input_schema"),
        (HELLO | {"files": {"main.py": 7}}, "spec.files.main.py"),
    ],
)
def test_a_bad_spec_names_what_is_wrong(cast, agent, spec, field):
    response = api(cast.adam).post("/api/agents/hello/versions", {"spec": spec})

    assert response.status_code == 422
    assert problem(response)["params"]["errors"][0]["field"] == field
    assert agent.versions.count() == 1


@pytest.mark.parametrize("body", [{}, {"spec": []}, {"spec": HELLO, "number": 7}])
def test_a_draft_is_a_spec_and_nothing_else(cast, agent, body):
    response = api(cast.adam).post("/api/agents/hello/versions", body)

    assert response.status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [({"version": 9}, 404), ({"version": 0}, 422), ({"version": "x"}, 422), ({}, 422)],
)
def test_only_a_version_that_exists_is_released(cast, agent, body, status):
    response = api(cast.adam).post("/api/agents/hello/release", body)

    assert response.status_code == status
    problem(response)


def test_a_slug_is_taken_once(cast, agent):
    response = api(cast.adam).post("/api/agents", {"slug": "hello", "title": "Again"})

    assert response.status_code == 409


@pytest.mark.parametrize("suffix", ["", "/versions", "/versions/1"])
def test_a_strangers_agent_does_not_exist(cast, suffix):
    theirs = make_agent(slug="theirs")
    client = api(cast.olivia)

    for ref in (theirs.pk, "theirs", uuid4()):
        response = client.get(f"/api/agents/{ref}{suffix}")
        assert response.status_code == 404
        problem(response)
    assert client.post(f"/api/agents/{theirs.pk}/release", {"version": 1}).status_code == 404
    assert client.post(f"/api/agents/{theirs.pk}/versions", {"spec": HELLO}).status_code == 404


def test_the_list_holds_ones_own_agents(cast, agent):
    make_agent(slug="theirs")

    listed = api(cast.vera).get("/api/agents").json()["results"]

    assert [(item["slug"], item["current"]) for item in listed] == [("hello", 1)]
    assert Agent.objects.count() == 2
