from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from apps.core import clock
from apps.events.models import AuditEntry
from apps.identity.models import ApiToken
from tests.faces import api, problem, session
from tests.factories import make_cast, make_token, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def cast():
    return make_cast()


def test_everybody_may_know_themselves(cast):
    body = api(cast.vera, "run:read").get("/api/me").json()

    assert body["user"]["username"] == cast.vera.username
    assert body["organization"]["slug"] == cast.organization.slug
    (grant,) = body["permissions"]
    assert (grant["scope"], grant["role"]) == ("organization", "viewer")
    assert grant["actions"] == ["run.read", "schedule.read"]
    assert body["token"]["scopes"] == ["run:read"]


def test_a_session_knows_itself_without_a_token(cast):
    body = session(cast.oscar).get("/api/me").json()

    assert body["token"] is None
    assert "run.submit" in body["permissions"][0]["actions"]
    assert "agent.manage" not in body["permissions"][0]["actions"]


def test_somebody_without_a_role_is_still_somebody():
    nobody = make_user()

    body = session(nobody).get("/api/rbac/me").json()

    assert body["permissions"] == []


def test_an_anonymous_caller_is_asked_who_they_are():
    response = api().get("/api/me")

    assert response.status_code == 401
    assert problem(response)["code"] == "not_authenticated"
    assert response["WWW-Authenticate"] == 'Bearer realm="aos"'


@pytest.mark.parametrize(
    "value", ["", "aos_pat_x", "aos_pat_abcdefgh_secret_0000000", "\xe9", "a" * 5000]
)
def test_a_wrong_token_is_a_401_that_says_nothing_more(value):
    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {value}")

    response = client.get("/api/me")

    assert response.status_code == 401
    assert problem(response)["code"] == "token_invalid"


def test_an_issued_token_works_and_its_value_is_shown_once(cast):
    wanted = {"name": "nightly", "scopes": ["run:read", "token:write"], "lifetime_days": 7}

    issued = session(cast.vera).post("/api/rbac/tokens", wanted, content_type="application/json")

    assert issued.status_code == 201
    assert issued["Cache-Control"] == "no-store"
    value = issued.json()["value"]
    assert value.startswith(issued.json()["prefix"])
    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {value}")
    (listed,) = client.get("/api/rbac/tokens").json()["results"]
    assert listed["name"] == "nightly"
    assert "value" not in listed
    assert AuditEntry.objects.get(action="token.issue").actor_id == cast.vera.pk


def test_a_token_cannot_make_a_wider_one_of_itself(cast):
    response = api(cast.olivia, "token:write").post(
        "/api/rbac/tokens", {"name": "wider", "scopes": ["admin"]}
    )

    assert response.status_code == 422
    assert problem(response)["params"]["errors"][0]["field"] == "scopes"
    assert not ApiToken.objects.filter(name="wider").exists()


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "run:read"}, "scopes"),
        ({"name": ""}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"lifetime_days": 366}, "lifetime_days"),
        ({"forever": True}, "forever"),
    ],
)
def test_a_malformed_token_request_names_the_field(cast, broken, field):
    response = api(cast.vera).post(
        "/api/rbac/tokens", {"name": "x", "scopes": ["run:read"]} | broken
    )

    assert response.status_code == 422
    assert field in {error["field"] for error in problem(response)["params"]["errors"]}


def test_a_revoked_token_is_useless_at_once(cast):
    client = api(cast.vera)
    token = ApiToken.objects.get(user=cast.vera)

    revoked = client.delete(f"/api/rbac/tokens/{token.pk}")

    assert revoked.status_code == 204
    assert client.get("/api/me").status_code == 401


def test_an_expired_token_is_useless(cast):
    client = api(cast.vera)
    ApiToken.objects.update(expires_at=clock.now() - timedelta(seconds=1))

    assert client.get("/api/me").status_code == 401


def test_the_token_of_a_disabled_person_is_useless(cast):
    client = api(cast.vera)
    cast.vera.is_active = False
    cast.vera.save(update_fields=["is_active"])

    assert client.get("/api/me").status_code == 401


def test_somebody_elses_token_does_not_exist(cast):
    make_token(cast.adam)
    theirs = ApiToken.objects.get(user=cast.adam)
    client = api(cast.olivia)

    seen = client.delete(f"/api/rbac/tokens/{theirs.pk}")
    unseen = client.delete(f"/api/rbac/tokens/{uuid4()}")
    malformed = client.delete("/api/rbac/tokens/x")

    assert seen.status_code == unseen.status_code == malformed.status_code == 404
    theirs.refresh_from_db()
    assert theirs.revoked_at is None


def test_a_session_needs_its_csrf_token_to_change_anything(cast):
    client = session(cast.vera)
    client.handler.enforce_csrf_checks = True

    response = client.post(
        "/api/rbac/tokens",
        {"name": "forged", "scopes": ["run:read"]},
        content_type="application/json",
    )

    assert response.status_code == 403
    assert not ApiToken.objects.exists()
