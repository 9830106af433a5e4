"""The forms about sandboxes, sent by something else than a browser that means well."""

from __future__ import annotations

import re

import pytest

from apps.agents.models import Agent, AgentVersion
from apps.identity.types import Role
from apps.runs.models import Run
from apps.sandboxes.models import Environment
from tests.faces import session
from tests.factories import make_agent, make_environment, make_project, make_user

pytestmark = pytest.mark.django_db
BEGIN = "/integrations/sandboxes"
NEW_SCRIPT = {
    "title": "Tidy",
    "entry": "main.py",
    "file-name": ["main.py"],
    "file-text": ["print(1)\r\n"],
}


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def client(project):
    return session(make_user(role=Role.ADMIN, organization=project.organization))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limits.memory_mb", "nan"),
        ("limits.memory_mb", "inf"),
        ("limits.cpu", "1e400"),
        ("limits.pids", "١٢٨"),
        ("limits.pids", "9" * 5000),
        ("egress.out_mb", "-"),
        ("description", "x\x00y"),
        ("profile", "a b"),
        ("mode", "anything"),
        ("hosts", "http://10.0.0.1/"),
        ("name", "../x"),
    ],
)
def test_a_strange_environment_is_refused_in_words_and_nothing_is_made(client, field, value):
    sent = {"name": "fine", "profile": "base", "mode": "none"} | {field: value}
    if field == "hosts":
        sent["mode"] = "allowlist"
    if field == "egress.out_mb":
        sent["mode"] = "open"

    response = client.post(f"{BEGIN}/environments/new", sent)

    assert response.status_code == 422
    assert "It is not saved" in response.content.decode()
    assert list(Environment.objects.exclude(name="blank")) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", '{"maximum": NaN}'),
        ("schema", '{"title": "\\u0000"}'),
        ("schema", "[" * 100_000),
        ("schema", '["a list"]'),
        ("title", "x\x00y"),
        ("title", ""),
        ("slug", "Not A Slug"),
        ("command", "python3 'unfinished"),
        ("timeout_s", "soon"),
        ("timeout_s", "9" * 40),
        ("environment", "nobody-made-this"),
        ("file-name", ["main.py", "main.py"]),
        ("file-name", ["../main.py"]),
        ("file-text", ["x\x00y"]),
        ("entry", "other.py"),
    ],
)
def test_a_strange_script_is_refused_in_words_and_nothing_is_made(client, field, value):
    sent = NEW_SCRIPT | {field: value}
    if field == "file-name":
        sent["file-text"] = ["print(1)"] * len(value)

    response = client.post(f"{BEGIN}/scripts/new", sent)

    assert response.status_code == 422
    assert "It is not saved" in response.content.decode()
    assert not Agent.objects.exists()


@pytest.mark.parametrize("given", ["[1]", "{", '{"a": NaN}', '{"a": "\\u0000"}'])
def test_a_strange_input_tries_nothing(client, project, given):
    agent = make_agent(organization=project.organization)
    sent = NEW_SCRIPT | {"title": agent.title, "seen": "1", "input": given}

    response = client.post(f"{BEGIN}/scripts/{agent.pk}?try=1", sent)

    assert response.status_code == 422
    assert not Run.objects.exists()


def test_lines_end_as_a_script_expects(client):
    made = client.post(f"{BEGIN}/scripts/new", NEW_SCRIPT)

    assert made.status_code == 302
    assert AgentVersion.objects.get().spec["files"] == {"main.py": "print(1)\n"}


def test_whether_files_stay_for_the_next_attempt_is_a_box_to_tick(client):
    client.post(f"{BEGIN}/scripts/new", NEW_SCRIPT | {"keep_workspace": "on"})
    agent = Agent.objects.get()
    shown = client.get(f"{BEGIN}/scripts/{agent.pk}").content.decode()
    client.post(f"{BEGIN}/scripts/{agent.pk}", NEW_SCRIPT | {"seen": "1"})

    ticked, unticked = agent.versions.order_by("number")
    assert ticked.spec["keep_workspace"] is True
    assert re.search(r'name="keep_workspace"[^>]* checked', shown)
    assert "keep_workspace" not in unticked.spec


def test_an_operator_changes_neither(project):
    operator = session(make_user(role=Role.OPERATOR, organization=project.organization))
    agent = make_agent(organization=project.organization)
    environment = make_environment(project=project)

    for path, sent in (
        (f"scripts/{agent.pk}", NEW_SCRIPT | {"seen": "1"}),
        (f"scripts/{agent.pk}?try=1", NEW_SCRIPT | {"seen": "1"}),
        (f"scripts/{agent.pk}/release", {}),
        ("scripts/new", NEW_SCRIPT),
        (f"environments/{environment.pk}/remove", {}),
        (f"environments/{environment.pk}/clone", {"name": "twin"}),
        (f"environments/{environment.pk}/default", {}),
    ):
        assert operator.post(f"{BEGIN}/{path}", sent).status_code == 403, path

    assert agent.versions.count() == 1
    assert not Run.objects.exists()


def test_a_script_of_another_organization_does_not_exist(client):
    agent, environment = make_agent(), make_environment()

    assert client.get(f"{BEGIN}/scripts/{agent.pk}").status_code == 404
    assert client.post(f"{BEGIN}/scripts/{agent.pk}", NEW_SCRIPT).status_code == 404
    assert client.get(f"{BEGIN}/environments/{environment.pk}").status_code == 404
