"""What was refused is on record, without anybody being able to fill the record."""

from __future__ import annotations

import pytest
from django.db import DatabaseError

from apps.core.errors import NotAllowed
from apps.events.models import AuditEntry
from apps.events.services import outbox
from apps.identity import denials, policy, watch
from apps.identity.actor import Actor
from apps.identity.models import ApiToken, Binding
from apps.identity.services import tokens
from apps.identity.types import Role
from tests.faces import api, key, session
from tests.factories import make_agent, make_cast, make_project, make_token, make_user, unwatched

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh():
    denials.forget()


@pytest.fixture
def cast():
    return make_cast()


def refused():
    return list(AuditEntry.objects.filter(action="access.denied").order_by("id"))


def test_a_role_that_does_not_reach_is_recorded(cast):
    response = api(cast.vera).post(
        "/api/projects", {"slug": "s", "name": "S"}, format="json", headers=key()
    )

    assert response.status_code == 403
    [entry] = refused()
    assert (entry.actor_id, entry.actor_name) == (cast.vera.pk, cast.vera.username)
    assert (entry.resource_id, entry.detail) == ("project.manage", {"reason": "not_allowed"})
    assert entry.organization_id == cast.organization.pk
    assert entry.token_id is not None


def test_a_run_that_was_not_let_in_is_recorded(cast):
    make_project(organization=cast.organization, slug="demo")
    make_agent(organization=cast.organization, slug="hello")

    api(cast.vera).post(
        "/api/run", {"project": "demo", "agent": "hello", "input": {}}, format="json", headers=key()
    )

    [entry] = refused()
    assert entry.resource_id == "run.submit"


def test_a_project_where_the_role_does_not_reach_is_named(cast):
    project = make_project(organization=cast.organization, slug="demo")
    elsewhere = make_project(organization=cast.organization)
    person = make_user(role=Role.OPERATOR, project=elsewhere)
    by = Actor(user=person)

    with denials.recorded(), pytest.raises(NotAllowed):
        policy.require(by, "run.submit", project_id=project.pk)

    [entry] = refused()
    assert entry.detail == {"reason": "not_allowed", "project": str(project.pk)}


def test_a_missing_scope_is_recorded(cast):
    api(cast.olivia, "project:read").get("/api/runs")

    [entry] = refused()
    assert (entry.resource_id, entry.detail) == ("run.read", {"reason": "scope_missing"})


def test_the_admin_and_flower_record_too(cast):
    assert session(cast.vera).get("/admin/").status_code == 403
    assert session(cast.vera).get("/flower/").status_code == 403

    assert [entry.resource_id for entry in refused()] == ["admin.view", "queue.watch"]


@pytest.mark.parametrize("path", ["/api/events/stream", "/api/events"])
def test_a_stream_that_was_not_opened_is_recorded(cast, path):
    project = make_project(organization=cast.organization, slug="demo")

    response = api(cast.olivia, "run:read").get(f"{path}?project={project.pk}")

    assert response.status_code == 403
    [entry] = refused()
    assert (entry.resource_id, entry.detail["reason"]) == ("event.read", "scope_missing")
    assert entry.token_id is not None


def test_a_stream_that_is_ended_because_access_was_withdrawn_is_recorded(cast):
    project = make_project(organization=cast.organization)
    person = make_user(organization=cast.organization, role=Role.VIEWER, project=project)
    watched = watch.begin(Actor(user=person), "event.read", project_id=project.pk)
    assert watched.holds()
    assert refused() == []
    with unwatched():
        Binding.objects.filter(user=person).delete()

    assert not watched.holds()
    assert not watched.holds()

    [entry] = refused()
    assert (entry.actor_id, entry.resource_id) == (person.pk, "event.read")


@pytest.mark.parametrize("wrong", ["revoked", "secret"])
def test_a_token_that_is_no_longer_one_is_recorded_with_its_owner(cast, wrong):
    value = make_token(cast.oscar, "run:read")
    token = ApiToken.objects.get(user=cast.oscar)
    if wrong == "revoked":
        tokens.revoke(by=Actor(user=cast.oscar), token=token)
    else:
        token.secret_hash = bytes(32)
        token.save(update_fields=["secret_hash"])
    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {value}")

    assert client.get("/api/runs").status_code == 401

    [entry] = refused()
    assert (entry.resource_id, entry.token_id) == ("token.use", token.pk)
    assert entry.organization_id == cast.organization.pk
    assert value not in str(entry.detail)


def test_knocking_again_is_counted_not_written(cast, monkeypatch):
    client = api(cast.vera, "project:write")
    for _ in range(50):
        client.post("/api/projects", {"slug": "s", "name": "S"}, format="json", headers=key())
    assert len(refused()) == 1

    monkeypatch.setattr(denials, "_WINDOW_S", 0.0)
    client.post("/api/projects", {"slug": "s", "name": "S"}, format="json", headers=key())

    assert [entry.detail.get("repeated") for entry in refused()] == [None, 49]


def test_what_is_allowed_leaves_no_refusal(cast):
    assert api(cast.vera).get("/api/runs").status_code == 200

    assert refused() == []


def test_an_answer_does_not_fail_because_the_record_cannot_be_written(cast, monkeypatch, caplog):
    def broken(*_, **__):
        raise DatabaseError("the disk is full")

    client = api(cast.vera)
    monkeypatch.setattr(outbox, "audit", broken)

    response = client.post(
        "/api/projects", {"slug": "s", "name": "S"}, format="json", headers=key()
    )

    assert response.status_code == 403
    assert "a refusal could not be recorded" in caplog.text


def test_a_check_nobody_waits_for_is_not_a_refusal(cast):
    """Pages ask what to show; that is no attempt."""
    session(cast.vera).get("/")

    assert refused() == []
