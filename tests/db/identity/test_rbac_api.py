"""People, service accounts, departments and bindings over HTTP: what the bodies say."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from apps.core import clock
from apps.events.models import AuditEntry
from apps.identity.matrix import MATRIX
from apps.identity.models import ApiToken, Binding, Department, User
from apps.identity.types import Role
from tests.faces import api, problem, session
from tests.factories import (
    make_agent,
    make_binding,
    make_cast,
    make_department,
    make_project,
    make_run,
    make_service_account,
    make_user,
)

pytestmark = pytest.mark.django_db
PERSON = {"username": "nina", "email": "nina@example.com", "password": "correct horse battery"}


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def admin(cast):
    return api(cast.adam)


def test_a_person_is_added_read_changed_and_shut_out(cast, admin):
    made = admin.post("/api/rbac/people", PERSON, format="json")
    place = made["Location"]

    assert made.status_code == 201
    assert made.json()["has_second_factor"] is False
    assert "password" not in made.json()
    changed = admin.patch(place, {"first_name": "Nina"}, format="json")
    assert changed.json()["first_name"] == "Nina"
    gone = admin.post(f"{place}/deactivate", {"reason": "left"}, format="json")
    assert gone.json()["is_active"] is False
    again = admin.post(f"{place}/reactivate")
    assert again.json()["is_active"] is True
    assert AuditEntry.objects.filter(resource_id=made.json()["id"]).count() == 4


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"password": "short"}, "password"),
        ({"username": "no spaces here"}, "username"),
        ({"email": "nobody"}, "email"),
        ({"role": "owner"}, "role"),
    ],
)
def test_a_broken_person_names_the_field_and_adds_nobody(admin, broken, field):
    response = admin.post("/api/rbac/people", PERSON | broken, format="json")

    assert response.status_code == 422
    assert field in {error["field"] for error in problem(response)["params"]["errors"]}
    assert not User.objects.filter(email=PERSON["email"]).exists()


def test_lists_are_filtered_and_paged(cast, admin):
    crew = make_department(cast.vera)
    make_user(organization=cast.organization, is_active=False)

    def names(query):
        return {row["username"] for row in admin.get(f"/api/rbac/people?{query}").json()["results"]}

    assert names(f"department={crew.pk}") == {cast.vera.username}
    assert names(f"username={cast.oscar.username}") == {cast.oscar.username}
    assert cast.vera.username not in names("active=false")
    first = admin.get("/api/rbac/people?limit=2").json()
    second = admin.get(f"/api/rbac/people?limit=2&cursor={first['next']}").json()
    pages = [row["id"] for page in (first, second) for row in page["results"]]
    assert len(pages) == len(set(pages)) == 4
    assert admin.get("/api/rbac/people?colour=red").status_code == 422


def test_people_and_service_accounts_are_two_lists(cast, admin):
    robot = make_service_account(organization=cast.organization)

    people = {row["id"] for row in admin.get("/api/rbac/people").json()["results"]}
    accounts = {row["id"] for row in admin.get("/api/rbac/service-accounts").json()["results"]}

    assert str(robot.pk) not in people
    assert accounts == {str(robot.pk)}
    assert admin.get(f"/api/rbac/people/{robot.pk}").status_code == 404
    assert admin.get(f"/api/rbac/service-accounts/{cast.vera.pk}").status_code == 404


def test_a_service_account_gets_a_token_that_works_from_its_network(cast, admin):
    made = admin.post("/api/rbac/service-accounts", {"username": "bot", "name": "Bot"}).json()
    admin.post("/api/rbac/bindings", {"user": made["id"], "role": "viewer"}, format="json")
    tokens = f"/api/rbac/service-accounts/{made['id']}/tokens"
    wanted = {"name": "ci", "scopes": ["run:read"], "allowed_networks": ["127.0.0.1"]}

    issued = admin.post(tokens, wanted, format="json")

    assert issued.status_code == 201
    assert issued["Cache-Control"] == "no-store"
    assert issued.json()["allowed_networks"] == ["127.0.0.1/32"]
    robot = api()
    robot.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.json()['value']}")
    assert robot.get("/api/runs").status_code == 200
    assert robot.get("/api/runs", REMOTE_ADDR="192.0.2.1").status_code == 401
    (listed,) = admin.get(tokens).json()["results"]
    assert "value" not in listed
    assert admin.delete(f"{tokens}/{listed['id']}").status_code == 204
    assert robot.get("/api/runs").status_code == 401


@pytest.mark.parametrize("network", ["office", "10.0.0.1/8", "1.2.3.4/99"])
def test_a_broken_network_names_the_field(admin, network):
    wanted = {"name": "t", "scopes": ["run:read"], "allowed_networks": [network]}

    response = admin.post("/api/rbac/tokens", wanted, format="json")

    assert response.status_code == 422
    assert problem(response)["params"]["errors"][0]["field"] == "allowed_networks"
    assert not ApiToken.objects.filter(name="t").exists()


def test_a_department_counts_its_members(cast, admin):
    made = admin.post("/api/rbac/departments", {"name": "Crew"}).json()
    place = f"/api/rbac/departments/{made['id']}"

    assert admin.put(f"{place}/members/{cast.vera.pk}").status_code == 204
    assert admin.get(place).json()["members"] == 1
    (member,) = admin.get(f"{place}/members").json()["results"]
    assert (member["id"], member["kind"]) == (str(cast.vera.pk), "person")
    assert admin.delete(f"{place}/members/{cast.vera.pk}").status_code == 204
    assert admin.get(place).json()["members"] == 0
    assert admin.patch(place, {"name": "Core"}).json()["name"] == "Core"
    assert admin.delete(place).status_code == 204
    assert not Department.objects.exists()


@pytest.mark.parametrize("scope", ["organization", "project", "agent", "run"])
def test_a_role_is_granted_over_each_kind_of_place_and_taken_back(cast, admin, scope):
    project = make_project(organization=cast.organization, slug="demo")
    agent = make_agent(organization=cast.organization, slug="hello")
    run = make_run(project=project, agent=agent)
    place = {"organization": "", "project": "demo", "agent": "hello", "run": str(run.public_id)}
    nina = make_user(organization=cast.organization)
    soon = clock.now() + timedelta(days=1)
    wanted = {
        "user": str(nina.pk),
        "role": "operator",
        "scope": scope,
        "place": place[scope],
        "expires_at": soon.isoformat(),
        "reason": "a visit",
    }

    made = admin.post("/api/rbac/bindings", wanted, format="json")

    assert made.status_code == 201, made.content
    body = made.json()
    assert body["subject"] == {"kind": "person", "id": str(nina.pk), "name": nina.username}
    assert (body["scope"], body["reason"]) == (scope, "a visit")
    assert body["granted_by"] == cast.adam.username
    assert body["has_ended"] is False
    client = session(nina)
    assert client.get(f"/api/runs/{run.public_id}").status_code == 200
    assert admin.get(made["Location"]).json() == body
    assert admin.delete(f"{made['Location']}?reason=over").status_code == 204
    assert AuditEntry.objects.get(action="binding.revoke").detail["why"] == "over"
    assert client.get(f"/api/runs/{run.public_id}").status_code == 403


@pytest.mark.parametrize(
    ("broken", "status", "field"),
    [
        ({"user": None}, 422, "user"),
        ({"role": "king"}, 422, "role"),
        ({"scope": "tool", "place": "x"}, 422, "scope"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "expires_at"),
        ({"scope": "project", "place": "nothing"}, 404, None),
        ({"scope": "run", "place": "not-an-id"}, 404, None),
        ({"user": str(uuid4())}, 404, None),
        ({"role": "owner"}, 403, None),
    ],
)
def test_a_binding_that_makes_no_sense_is_refused(cast, admin, broken, status, field):
    before = Binding.objects.count()
    wanted = {"user": str(cast.vera.pk), "role": "viewer"} | broken

    response = admin.post(
        "/api/rbac/bindings", {k: v for k, v in wanted.items() if v}, format="json"
    )

    assert response.status_code == status
    if field:
        assert field in {error["field"] for error in problem(response)["params"]["errors"]}
    assert Binding.objects.count() == before


def test_a_binding_names_one_subject(cast, admin):
    both = {
        "user": str(cast.vera.pk),
        "department": str(make_department(cast.vera).pk),
        "role": "viewer",
    }

    assert admin.post("/api/rbac/bindings", both, format="json").status_code == 422


def test_the_last_owner_stays(cast):
    binding = Binding.objects.get(user=cast.olivia)

    response = api(cast.olivia).delete(f"/api/rbac/bindings/{binding.pk}")

    assert response.status_code == 409
    assert "last owner" in problem(response)["detail"]


def test_a_stale_session_is_asked_for_a_proof_and_a_fresh_one_is_not(cast):
    client = session(cast.adam)

    fresh = client.post("/api/rbac/people", PERSON, content_type="application/json")
    browser = client.session
    browser["aos_verified_at"] = "2020-01-01T00:00:00+00:00"
    browser.save()
    stale = client.post("/api/rbac/departments", {"name": "Crew"}, content_type="application/json")
    reading = client.get("/api/rbac/people")

    assert fresh.status_code == 201
    assert stale.status_code == 403
    assert problem(stale)["code"] == "step_up_required"
    assert reading.status_code == 200


def test_the_matrix_is_told_as_it_is(cast):
    body = session(make_user()).get("/api/rbac/roles").json()

    assert [role["role"] for role in body["roles"]] == list(Role)
    assert {row["action"] for row in body["actions"]} == set(MATRIX)
    told = next(row for row in body["actions"] if row["action"] == "people.manage")
    assert (told["role"], told["over"], told["step_up"]) == ("admin", ["organization"], True)
    viewer = next(role for role in body["roles"] if role["role"] == "viewer")
    assert "run.read" in viewer["actions"]
    assert "run.submit" not in viewer["actions"]


def check(client, action, resource):
    return client.get("/api/rbac/check", {"action": action, "resource": resource})


def test_the_check_says_why_and_why_not(cast):
    project = make_project(organization=cast.organization, slug="demo")
    nina = make_user(organization=cast.organization)
    crew = make_department(nina)
    make_binding(crew, Role.OPERATOR, project)

    may = check(session(nina), "run.submit", "project:demo").json()
    may_not = check(session(cast.vera), "run.submit", "project:demo").json()
    by_token = check(api(nina, "run:read"), "run.submit", "project:demo").json()

    assert may["allowed"] is True
    assert may["resource"] == {"scope": "project", "id": str(project.pk), "name": project.name}
    assert may["through"][0]["department"] == crew.name
    assert (may_not["allowed"], may_not["code"]) == (False, "not_allowed")
    assert may_not["through"][0]["role"] == "viewer"
    assert (by_token["allowed"], by_token["code"]) == (False, "scope_missing")
    # Asking is no attempt.
    assert not AuditEntry.objects.filter(action="access.denied").exists()


def test_somebody_without_a_role_may_ask_why_too(cast):
    body = check(session(make_user(organization=cast.organization)), "run.submit", "organization")

    assert body.json()["code"] == "not_allowed"
    assert "no role reaches" in body.json()["why"]


@pytest.mark.parametrize(
    ("action", "resource", "status"),
    [
        ("run.fly", "organization", 422),
        ("run.read", "galaxy:x", 422),
        ("run.read", "organization:x", 422),
        ("run.read", "project:", 422),
        ("run.read", "project:demo", 404),
        ("run.read", "run:x", 404),
    ],
)
def test_a_check_of_what_does_not_exist_is_refused(cast, action, resource, status):
    make_project(organization=cast.sam.organization, slug="demo")

    assert check(api(cast.olivia), action, resource).status_code == status
