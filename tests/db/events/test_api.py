"""GET /api/events: a project's log in pages, for those who may see it."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from apps.events import wire
from apps.hub.api.serializers import EventSerializer
from apps.identity.types import Role
from tests.events.cast import emit, log_of, publish, token_for
from tests.factories import make_project, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project():
    return make_project()


@pytest.fixture
def vera(project):
    """A viewer of the project."""
    client = APIClient()
    client.force_authenticate(make_user(role=Role.VIEWER, project=project))
    return client


def test_pages_follow_one_another_by_seq(vera, project):
    publish(project, 5)

    first = vera.get("/api/events", {"project": project.slug, "limit": 3}).json()
    second = vera.get(
        "/api/events", {"project": str(project.pk), "limit": 3, "after": first["next_after"]}
    ).json()
    third = vera.get("/api/events", {"project": project.slug, "after": second["next_after"]}).json()

    assert [event["seq"] for event in first["results"]] == [1, 2, 3]
    assert [event["seq"] for event in second["results"]] == [4, 5]
    assert third == {"results": [], "next_after": 5}


def test_an_event_looks_as_the_contract_says(vera, project):
    run_id = uuid4()
    emit(project, run_id=run_id, title="Füße", progress=0.5, facts={})
    publish(project)
    (event, other) = log_of(project)

    shown = vera.get("/api/events", {"project": project.slug}).json()["results"]

    assert shown[0] == {
        "seq": 1,
        "id": str(event.event_id),
        "type": "task.progress.milestone",
        "run": str(run_id),
        "project": str(project.pk),
        "trace_id": "0" * 32,
        "severity": "info",
        "payload": {"title": "Füße", "progress": 0.5, "facts": {}},
        "at": event.at.isoformat().replace("+00:00", "Z"),
    }
    assert shown[1]["run"] is None
    assert json.loads(wire.as_text(wire.as_json(other))) == shown[1]


def test_the_schema_describes_what_is_sent(project):
    publish(project)
    (event,) = log_of(project)

    sent = wire.as_json(event)

    assert list(sent) == list(EventSerializer().fields)
    assert EventSerializer(data=sent).is_valid(raise_exception=True)


def test_the_stranger_gets_the_answer_for_a_project_that_does_not_exist(project):
    publish(project)
    sam = APIClient()
    sam.force_authenticate(make_user(role=Role.OWNER))
    missing = uuid4()

    theirs = sam.get("/api/events", {"project": str(project.pk)})
    nobodys = sam.get("/api/events", {"project": str(missing)})

    assert theirs.status_code == nobodys.status_code == 404
    assert theirs["Content-Type"] == "application/problem+json"
    assert theirs.json() == json.loads(
        nobodys.content.decode().replace(str(missing), str(project.pk))
    )


def test_a_member_of_another_project_sees_nothing_of_this_one(project):
    other = make_project(organization=project.organization)
    vera = APIClient()
    vera.force_authenticate(make_user(role=Role.VIEWER, project=other))

    assert vera.get("/api/events", {"project": project.slug}).status_code == 404
    assert vera.get("/api/events", {"project": other.slug}).status_code == 200


@pytest.mark.parametrize("path", ["/api/events", "/api/events/stream"])
def test_nobody_is_let_in_without_signing_in(path, project):
    response = APIClient().get(path, {"project": project.slug})

    assert response.status_code == 401
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/api/events", "/api/events/stream"])
def test_a_token_needs_the_scope(path, project):
    user = make_user(role=Role.VIEWER, project=project)
    client = APIClient()

    with_it = client.get(
        "/api/events",
        {"project": project.slug},
        headers={"Authorization": f"Bearer {token_for(user, 'event:read')}"},
    )
    without = client.get(
        path,
        {"project": project.slug},
        headers={"Authorization": f"Bearer {token_for(user, 'run:read')}"},
    )

    assert with_it.status_code == 200
    assert without.status_code == 403
    assert without.json()["code"] == "scope_missing"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "project"),
        ("project=", "project"),
        ("project=" + "x" * 65, "project"),
        ("project=a%00b", "project"),
        ("project={project}&after=-1", "after"),
        ("project={project}&after=1.5", "after"),
        ("project={project}&after=last", "after"),
        ("project={project}&after=9223372036854775808", "after"),
        ("project={project}&afetr=3", "afetr"),
    ],
)
def test_a_bad_parameter_is_named(query, field, vera, project):
    page, stream = (
        vera.get(f"{path}?{query.format(project=project.slug)}")
        for path in ("/api/events", "/api/events/stream")
    )

    assert page.status_code == 422
    assert page["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in page.json()["params"]["errors"]] == [field]
    assert (stream.status_code, stream.json()["code"]) == (422, "invalid")


@pytest.mark.parametrize("limit", ["0", "501", "many", "-1"])
def test_a_limit_beyond_the_limits_is_refused(limit, vera, project):
    response = vera.get("/api/events", {"project": project.slug, "limit": limit})

    assert response.status_code == 422
    assert response.json()["params"]["errors"][0]["field"] == "limit"


@pytest.mark.parametrize("value", ["abc", "-1", "1e3", "٣", "9" * 19])
def test_a_bad_last_event_id_is_refused(value, vera, project):
    response = vera.get(
        "/api/events/stream",
        {"project": project.slug},
        headers={"Last-Event-ID": value.encode().decode("latin-1")},
    )

    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("slug", ["../etc", "a b", "%", "ünder"])
def test_a_project_that_cannot_be_named_so_does_not_exist(slug, vera):
    assert vera.get("/api/events", {"project": slug}).status_code == 404


def test_a_type_that_is_not_spoken_here_is_refused(vera, project):
    response = vera.get(
        "/api/events", {"project": project.slug}, headers={"Accept": "application/xml"}
    )

    assert response.status_code == 406
