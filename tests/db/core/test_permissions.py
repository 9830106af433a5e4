"""Every endpoint against every kind of caller. The table is written by hand, on purpose: it says what
was decided, not what the code does."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.urls import get_resolver
from django.urls.resolvers import URLPattern

from apps.core import clock
from apps.identity.matrix import MATRIX, SCOPES
from apps.identity.models import SecondFactor
from apps.identity.services import proposals
from apps.identity.types import Role
from tests.faces import api, key, problem, session
from tests.factories import (
    HELLO,
    make_actor,
    make_agent,
    make_artifact,
    make_binding,
    make_bulk_act,
    make_cast,
    make_dead_run,
    make_department,
    make_environment,
    make_project,
    make_run,
    make_schedule,
    make_service_account,
    make_token,
    make_user,
)

pytestmark = pytest.mark.django_db

VIEWER, OPERATOR, ADMIN, OWNER = 1, 2, 3, 4
RANKS = {"vera": VIEWER, "oscar": OPERATOR, "adam": ADMIN, "olivia": OWNER}

TASK = {"project": "demo", "agent": "hello", "input": {}}
BULK = {"act": "cancel", "filter": {"project": "demo"}}
SCHEDULE = {
    "project": "demo",
    "agent": "hello",
    "name": "Mornings",
    "cron": "0 7 * * *",
    "task": {"input": {}},
}
# method, path, body, the least rank, the scope a token needs, the answer to who may
TABLE = [
    ("post", "/api/run", TASK, OPERATOR, "run:write", 202),
    ("get", "/api/runs", None, VIEWER, "run:read", 200),
    ("post", "/api/runs", TASK, OPERATOR, "run:write", 202),
    ("post", "/api/runs/bulk", {"runs": [TASK]}, OPERATOR, "run:write", 202),
    ("post", "/api/runs/bulk/preview", BULK, OPERATOR, "run:write", 200),
    ("get", "/api/runs/bulk/acts", None, VIEWER, "run:read", 200),
    ("post", "/api/runs/bulk/acts", BULK, OPERATOR, "run:write", 202),
    ("get", "/api/runs/bulk/acts/{bulk}", None, VIEWER, "run:read", 200),
    ("post", "/api/runs/bulk/acts/{bulk}/proceed", None, OPERATOR, "run:write", 200),
    ("post", "/api/runs/bulk/acts/{bulk}/stop", None, OPERATOR, "run:write", 200),
    ("get", "/api/runs/{run}", None, VIEWER, "run:read", 200),
    ("post", "/api/runs/{run}/cancel", None, OPERATOR, "run:write", 202),
    ("post", "/api/runs/{run}/rerun", None, OPERATOR, "run:write", 202),
    ("post", "/api/runs/{dead}/requeue", None, OPERATOR, "run:write", 202),
    ("post", "/api/runs/{dead}/dismiss", None, OPERATOR, "run:write", 200),
    ("get", "/api/runs/{run}/dependencies", None, VIEWER, "run:read", 200),
    ("get", "/api/dead-letters", None, VIEWER, "run:read", 200),
    ("get", "/api/runs/{run}/events", None, VIEWER, "run:read", 200),
    ("get", "/api/runs/{run}/artifacts", None, VIEWER, "run:read", 200),
    ("get", "/api/runs/{run}/artifacts/report.md", None, VIEWER, "run:read", 200),
    ("get", "/api/schedules", None, VIEWER, "run:read", 200),
    ("post", "/api/schedules", SCHEDULE, OPERATOR, "schedule:write", 201),
    ("get", "/api/schedules/{schedule}", None, VIEWER, "run:read", 200),
    ("patch", "/api/schedules/{schedule}", {"name": "N"}, OPERATOR, "schedule:write", 200),
    ("post", "/api/schedules/{schedule}/pause", None, OPERATOR, "schedule:write", 200),
    ("post", "/api/schedules/{schedule}/resume", None, OPERATOR, "schedule:write", 200),
    ("post", "/api/schedules/{schedule}/run", None, OPERATOR, "run:write", 202),
    ("get", "/api/schedules/{schedule}/fires", None, VIEWER, "run:read", 200),
    ("delete", "/api/schedules/nobodys", None, OPERATOR, "schedule:write", 404),
    ("get", "/api/queues", None, OPERATOR, "queue:read", 200),
    ("post", "/api/queues/default/normal/pause", None, ADMIN, "queue:write", 200),
    ("post", "/api/queues/default/normal/resume", None, ADMIN, "queue:write", 200),
    ("put", "/api/queues/default/normal/cap", {"cap": 3}, ADMIN, "queue:write", 200),
    ("get", "/api/limits", None, OPERATOR, "queue:read", 200),
    ("get", "/api/limits/organization", None, OPERATOR, "queue:read", 404),
    ("put", "/api/limits/organization", {"queue_limit": 9}, ADMIN, "queue:write", 200),
    ("delete", "/api/limits/organization", None, ADMIN, "queue:write", 404),
    ("get", "/api/limits/projects/demo", None, OPERATOR, "queue:read", 404),
    ("put", "/api/limits/projects/demo", {"cap": 3}, ADMIN, "queue:write", 200),
    ("delete", "/api/limits/projects/demo", None, ADMIN, "queue:write", 404),
    ("get", "/api/limits/agents/hello", None, OPERATOR, "queue:read", 404),
    ("put", "/api/limits/agents/hello", {"cap": 3}, ADMIN, "queue:write", 200),
    ("delete", "/api/limits/agents/hello", None, ADMIN, "queue:write", 404),
    ("get", "/api/limits/keys/nobodys", None, OPERATOR, "queue:read", 404),
    ("put", "/api/limits/keys/nobodys", {"cap": 3}, ADMIN, "queue:write", 200),
    ("delete", "/api/limits/keys/nobodys", None, ADMIN, "queue:write", 404),
    ("get", "/api/retention", None, OPERATOR, "queue:read", 200),
    ("put", "/api/retention", {"run_days": 90}, OWNER, "queue:write", 200),
    ("delete", "/api/retention", None, OWNER, "queue:write", 200),
    ("post", "/api/agents/hello/pause", {"reason": "r"}, ADMIN, "agent:write", 200),
    ("post", "/api/agents/hello/resume", None, ADMIN, "agent:write", 200),
    ("get", "/api/projects", None, VIEWER, "project:read", 200),
    ("post", "/api/projects", {"slug": "s", "name": "S"}, ADMIN, "project:write", 201),
    ("get", "/api/projects/demo", None, VIEWER, "project:read", 200),
    ("get", "/api/projects/demo/files", None, VIEWER, "project:read", 200),
    ("post", "/api/projects/demo/files", "upload", OPERATOR, "project:write", 201),
    ("get", "/api/sandboxes/environments", None, VIEWER, "sandbox:read", 200),
    (
        "post",
        "/api/sandboxes/environments",
        {"name": "e", "project": "demo"},
        ADMIN,
        "sandbox:write",
        201,
    ),
    ("get", "/api/sandboxes/environments/{environment}", None, VIEWER, "sandbox:read", 200),
    ("patch", "/api/sandboxes/environments/{environment}", {}, ADMIN, "sandbox:write", 200),
    ("delete", "/api/sandboxes/environments/{environment}", None, ADMIN, "sandbox:write", 204),
    (
        "post",
        "/api/sandboxes/environments/{environment}/clone",
        {"name": "like-it", "project": "demo"},
        ADMIN,
        "sandbox:write",
        201,
    ),
    (
        "post",
        "/api/sandboxes/environments/{environment}/default",
        None,
        ADMIN,
        "sandbox:write",
        200,
    ),
    ("get", "/api/sandboxes/profiles", None, VIEWER, "sandbox:read", 200),
    ("get", "/api/sandboxes/images", None, VIEWER, "sandbox:read", 200),
    ("get", "/api/sandboxes/instances", None, VIEWER, "sandbox:read", 200),
    ("get", "/api/agents", None, VIEWER, "agent:read", 200),
    ("post", "/api/agents", {"slug": "s", "title": "S"}, ADMIN, "agent:write", 201),
    ("get", "/api/agents/hello", None, VIEWER, "agent:read", 200),
    ("patch", "/api/agents/hello", {"title": "T"}, ADMIN, "agent:write", 200),
    ("delete", "/api/agents/hello", None, ADMIN, "agent:write", 409),
    ("get", "/api/agents/hello/versions", None, VIEWER, "agent:read", 200),
    ("post", "/api/agents/hello/versions", {"spec": HELLO}, ADMIN, "agent:write", 201),
    ("get", "/api/agents/hello/versions/1", None, VIEWER, "agent:read", 200),
    ("post", "/api/agents/hello/release", {"version": 1}, ADMIN, "agent:write", 200),
    ("get", "/api/rbac/tokens", None, VIEWER, "token:write", 200),
    (
        "post",
        "/api/rbac/tokens",
        {"name": "t", "scopes": ["token:write"]},
        VIEWER,
        "token:write",
        201,
    ),
    ("delete", "/api/rbac/tokens/nobodys", None, VIEWER, "token:write", 404),
    ("get", "/api/rbac/people", None, ADMIN, "people:read", 200),
    (
        "post",
        "/api/rbac/people",
        {"username": "nina", "email": "nina@example.com", "password": "correct horse battery"},
        ADMIN,
        "admin",
        201,
    ),
    ("get", "/api/rbac/people/{person}", None, ADMIN, "people:read", 200),
    ("patch", "/api/rbac/people/{person}", {"first_name": "P"}, ADMIN, "admin", 200),
    ("post", "/api/rbac/people/{person}/deactivate", {}, ADMIN, "admin", 200),
    ("post", "/api/rbac/people/{person}/reactivate", None, ADMIN, "admin", 200),
    ("delete", "/api/rbac/people/{person}/sessions", None, ADMIN, "admin", 204),
    ("delete", "/api/rbac/people/{person}/second-factor", None, ADMIN, "admin", 204),
    ("get", "/api/rbac/service-accounts", None, ADMIN, "people:read", 200),
    ("post", "/api/rbac/service-accounts", {"username": "bot"}, ADMIN, "admin", 201),
    ("get", "/api/rbac/service-accounts/{account}", None, ADMIN, "people:read", 200),
    ("patch", "/api/rbac/service-accounts/{account}", {"name": "B"}, ADMIN, "admin", 200),
    ("post", "/api/rbac/service-accounts/{account}/deactivate", {}, ADMIN, "admin", 200),
    ("post", "/api/rbac/service-accounts/{account}/reactivate", None, ADMIN, "admin", 200),
    ("get", "/api/rbac/service-accounts/{account}/tokens", None, ADMIN, "people:read", 200),
    (
        "post",
        "/api/rbac/service-accounts/{account}/tokens",
        {"name": "t", "scopes": ["admin"]},
        ADMIN,
        "admin",
        201,
    ),
    (
        "delete",
        "/api/rbac/service-accounts/{account}/tokens/{token}",
        None,
        ADMIN,
        "admin",
        204,
    ),
    ("get", "/api/rbac/departments", None, ADMIN, "people:read", 200),
    ("post", "/api/rbac/departments", {"name": "New"}, ADMIN, "admin", 201),
    ("get", "/api/rbac/departments/{department}", None, ADMIN, "people:read", 200),
    ("patch", "/api/rbac/departments/{department}", {"name": "Other"}, ADMIN, "admin", 200),
    ("get", "/api/rbac/departments/{department}/members", None, ADMIN, "people:read", 200),
    ("put", "/api/rbac/departments/{department}/members/{person}", None, ADMIN, "admin", 204),
    ("delete", "/api/rbac/departments/{department}/members/{person}", None, ADMIN, "admin", 204),
    ("delete", "/api/rbac/departments/{department}", None, ADMIN, "admin", 204),
    ("get", "/api/rbac/bindings", None, ADMIN, "people:read", 200),
    ("post", "/api/rbac/bindings", {"user": "{person}", "role": "viewer"}, ADMIN, "admin", 201),
    ("get", "/api/rbac/bindings/{binding}", None, ADMIN, "people:read", 200),
    ("delete", "/api/rbac/bindings/{binding}", None, ADMIN, "admin", 204),
    ("get", "/api/rbac/proposals", None, ADMIN, "people:read", 200),
    ("post", "/api/rbac/proposals", {"user": "{account}"}, OWNER, "admin", 201),
    ("get", "/api/rbac/proposals/{proposal}", None, ADMIN, "people:read", 200),
    ("post", "/api/rbac/proposals/{proposal}/accept", None, OWNER, "admin", 200),
    ("post", "/api/rbac/proposals/{proposal}/decline", {}, OWNER, "admin", 200),
    ("get", "/api/events?project=demo", None, VIEWER, "event:read", 200),
    ("get", "/api/events/stream?project=demo", None, VIEWER, "event:read", 200),
    ("get", "/api/audit/logs", None, ADMIN, "audit:read", 200),
    ("get", "/api/audit/export", None, ADMIN, "audit:export", 200),
    ("get", "/api/audit/verify", None, ADMIN, "audit:read", 200),
    ("get", "/metrics", None, OPERATOR, "metrics:read", 200),
]
# What is left: public, or for anybody who is signed in.
ELSEWHERE = {
    "/api/schema",
    "/api/docs",
    "/api/me",
    "/api/rbac/me",
    "/api/rbac/roles",
    "/api/rbac/check",
}
# About the caller's own organization, and tested for that where they are built.
OF_THE_ASKER = {
    "/api/limits/organization",
    "/api/limits/keys/nobodys",
    "/api/retention",
    "/metrics",
    "/api/audit/logs",
    "/api/audit/export",
    "/api/audit/verify",
    "/api/rbac/people",
    "/api/rbac/bindings",
    "/api/rbac/proposals",
    "/api/sandboxes/environments",
}
IDS = [f"{method} {path}" for method, path, *_ in TABLE]


@pytest.fixture
def cast():
    return make_cast()


@pytest.fixture
def address(cast):
    """Fills a row of the table with what lies in the cast's organization."""
    ids = furnish(cast.organization)
    return lambda text: fill(text, ids)


def furnish(organization, *, project="demo", agent="hello"):
    """One thing of each kind that paths and bodies name."""
    project = make_project(organization=organization, slug=project)
    agent = make_agent(organization=organization, slug=agent)
    run = make_run(project=project, agent=agent)
    make_artifact(run)
    schedule = make_schedule(project=project, agent=agent)
    person = make_user(organization=organization)
    SecondFactor.objects.create(user=person, sealed_secret=b"x", confirmed_at=clock.now())
    account = make_service_account(organization=organization)
    binding = make_binding(account, Role.VIEWER)
    make_token(account)
    admin = make_actor(organization=organization)
    return {
        "project": project.pk,
        "agent": agent.pk,
        "run": run.public_id,
        "dead": make_dead_run(project=project, agent=agent).public_id,
        "bulk": make_bulk_act(by=admin, project=project).pk,
        "schedule": schedule.pk,
        "person": person.pk,
        "account": account.pk,
        "token": account.api_tokens.get().pk,
        "department": make_department(person).pk,
        "binding": binding.pk,
        "environment": make_environment(project=project).pk,
        "proposal": proposals.propose(by=admin, user=person).pk,
    }


def fill(given, ids):
    """A path or a body with the ids in it."""
    if isinstance(given, dict):
        return {name: fill(value, ids) for name, value in given.items()}
    return given.format_map(ids) if isinstance(given, str) else given


def send(client, method, path, body):
    if body == "upload":
        body = {"file": SimpleUploadedFile("a.csv", b"x")}
        return client.post(path, body, format="multipart", headers=key())
    response = getattr(client, method)(path, body, format="json", headers=key())
    if "Content-Disposition" in response:
        b"".join(response.streaming_content)
    return response


@pytest.mark.parametrize(("method", "path", "body", "rank", "scope", "status"), TABLE, ids=IDS)
def test_each_role_may_what_its_rank_allows(cast, address, method, path, body, rank, scope, status):
    for name, has in RANKS.items():
        client = api(getattr(cast, name))
        # What one has done or removed is there again for the next.
        with transaction.atomic():
            response = send(client, method, address(path), address(body))
            transaction.set_rollback(True)

        if has >= rank:
            assert response.status_code == status, (name, response.content)
        else:
            assert response.status_code == 403, name
            assert problem(response)["code"] == "not_allowed"


@pytest.mark.parametrize(("method", "path", "body", "rank", "scope", "status"), TABLE, ids=IDS)
def test_a_token_without_the_scope_is_refused_whoever_owns_it(
    cast, address, method, path, body, rank, scope, status
):
    others = [other for other in SCOPES if other != scope]

    without = send(api(cast.olivia, *others), method, address(path), address(body))
    alone = send(api(cast.olivia, scope), method, address(path), address(body))

    assert without.status_code == 403
    assert problem(without)["code"] == "scope_missing"
    assert problem(without)["params"] == {"scope": scope}
    assert alone.status_code == status


@pytest.mark.parametrize(("method", "path", "body", "rank", "scope", "status"), TABLE, ids=IDS)
def test_nobody_gets_in_without_a_name(cast, address, method, path, body, rank, scope, status):
    response = send(api(), method, address(path), address(body))

    assert response.status_code == 401
    assert problem(response)["code"] == "not_authenticated"


@pytest.mark.parametrize(("method", "path", "body", "rank", "scope", "status"), TABLE, ids=IDS)
def test_a_stranger_finds_nothing_of_ours(cast, address, method, path, body, rank, scope, status):
    response = send(api(cast.sam), method, address(path), address(body))

    if path == "/api/runs/bulk":
        # Each of many is answered for itself.
        assert [each["error"]["code"] for each in response.json()["results"]] == ["not_found"]
        return
    ours = ("demo", "'hello'", "{person}", "{account}")
    names_ours = "{" in path or any(word in f"{path} {body}" for word in ours)
    if names_ours or "/hello" in path:
        assert response.status_code == 404
        problem(response)
    elif method == "get" and path not in OF_THE_ASKER:
        assert [row for row in response.json()["results"] if row.get("name") != "test"] == []


def test_the_table_is_complete():
    routes = {
        "/" + prefix + str(pattern.pattern)
        for prefix, pattern in leaves(get_resolver().url_patterns)
        if (prefix + str(pattern.pattern)).startswith(("api/", "metrics"))
    }

    told = {shape(path) for _, path, *_ in TABLE} | ELSEWHERE

    assert {shape(route) for route in routes} == told


def leaves(patterns, prefix=""):
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            yield prefix, pattern
        else:
            yield from leaves(pattern.url_patterns, prefix + str(pattern.pattern))


def shape(path):
    """``/api/runs/{run}/events`` and its route alike: names of things become stars."""
    parts = path.split("?")[0].split("/")
    places = {"default", "normal", "demo", "hello", "1", "report.md", "nobodys"}
    return "/".join("*" if part in places or part[:1] in {"<", "{"} else part for part in parts)


def test_every_action_of_the_matrix_can_be_asked_for_somewhere():
    scopes = {scope for *_, scope, _ in TABLE}

    assert scopes == {rule.scope for rule in MATRIX.values()}


@pytest.mark.parametrize("method", ["put", "patch", "delete", "trace"])
def test_a_method_nobody_offers_is_refused(cast, method):
    response = (
        getattr(api(cast.olivia), method)("/api/runs")
        if method != "trace"
        else api(cast.olivia).generic("TRACE", "/api/runs")
    )

    assert response.status_code in {403, 405}
    problem(response)


def test_a_session_reads_like_a_token_does(cast, address):
    response = session(cast.vera).get("/api/runs")

    assert response.status_code == 200


def test_an_unknown_path_is_a_problem_too(cast):
    for path in ("/api", "/api/", "/api/nothing", "/api/runs/", "/api/runs//events"):
        response = api(cast.olivia).get(path)

        assert response.status_code == 404
        assert problem(response)["code"] == "not_found"
