"""Which requests count together, what too many are told, and what is never counted."""

from __future__ import annotations

import asyncio
import json

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.test import Client

from aos_project.asgi import application
from apps.core import limits, streams
from apps.identity import limiting
from apps.identity.types import Role
from tests.architecture.test_urls import ROUTES
from tests.faces import api, key, problem, session
from tests.factories import make_agent, make_cast, make_project, make_token, make_user

pytestmark = pytest.mark.django_db
OFF = dict.fromkeys(
    ("anonymous", "sign-in", "read", "write", "submit", "export", "stream", "organization",
     "submit-organization"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def allow(settings, tmp_path):
    """Set limits for this test: ``allow(read=3)`` is three in an hour; the others are off."""
    settings.AOS_INSTANCE = f"limiting-{tmp_path.name}"
    settings.AOS_LIMITS = OFF

    def set_limits(**counts):
        rates = {name.replace("_", "-"): (count, 3600) for name, count in counts.items()}
        settings.AOS_LIMITS = OFF | rates

    limits.start_anew()
    yield set_limits
    limits.start_anew()


@pytest.fixture
def cast():
    return make_cast()


def about(seconds):
    """This long, or a little less where the requests themselves took their time."""
    return range(seconds - 60, seconds + 1)


def statuses(client, path, times, **words):
    return [client.get(path, **words).status_code for _ in range(times)]


def test_too_many_reads_are_refused_with_what_to_do(allow, cast):
    allow(read=2)
    client = api(cast.vera)
    first, _, third = (client.get("/api/me") for _ in range(3))

    assert first.status_code == 200
    assert first["RateLimit-Policy"] == '"read";q=2;w=3600'
    left, _, waits = first["RateLimit"].rpartition(";t=")
    assert left == '"read";r=1'
    assert int(waits) in about(1800)
    told = problem(third)
    assert (told["status"], told["code"]) == (429, "too_many_requests")
    wait = told["params"].pop("retry_after")
    assert told["params"] == {"limit": "read", "count": 2, "seconds": 3600}
    assert wait in about(1800)
    assert f"Wait {wait} seconds" in told["detail"]
    assert third["Retry-After"] == str(wait)


def test_reading_leaves_room_for_writing(allow, cast):
    allow(read=1, write=1)
    client = api(cast.vera)
    statuses(client, "/api/me", 3)

    body = {"name": "one", "scopes": ["run:read"]}
    assert client.post("/api/rbac/tokens", body).status_code == 201
    assert client.post("/api/rbac/tokens", body).status_code == 429


def test_all_tokens_of_a_person_share_a_bucket(allow, cast):
    allow(read=2)

    assert [api(cast.vera).get("/api/me").status_code for _ in range(3)] == [200, 200, 429]
    assert api(cast.oscar).get("/api/me").status_code == 200


def test_a_program_that_runs_wild_leaves_its_owner_the_pages(allow, cast):
    allow(read=2)
    statuses(api(cast.vera), "/api/me", 5)

    assert session(cast.vera).get("/runs").status_code == 200


def test_an_organization_has_a_bucket_for_all_its_people(allow, cast):
    allow(read=10, organization=3)

    told = [api(user).get("/api/me").status_code for user in (cast.vera, cast.oscar) * 2]

    assert told == [200, 200, 200, 429]
    assert api(cast.sam).get("/api/me").status_code == 200


def test_strangers_share_the_bucket_of_their_address(allow, cast):
    allow(anonymous=3)
    forged = {"HTTP_AUTHORIZATION": "Bearer " + make_token(cast.vera)[:-1] + "_"}

    told = [
        Client().get("/api/me").status_code,
        Client().get("/api/me", **forged).status_code,
        Client().get("/login").status_code,
        Client().get("/api/me", **forged).status_code,
        Client().get("/api/nowhere").status_code,
    ]

    assert told == [401, 401, 200, 429, 429]
    assert Client(REMOTE_ADDR="192.0.2.9").get("/api/me").status_code == 401
    assert api(cast.vera).get("/api/me").status_code == 200


def test_nobody_can_empty_the_bucket_of_somebody_else(allow, cast):
    allow(read=2, anonymous=1)
    value = make_token(cast.vera)
    prefix, _, _ = value.rpartition("_")
    for number in range(5):
        Client().get("/api/me", HTTP_AUTHORIZATION=f"Bearer {prefix}_{number}")

    assert Client().get("/api/me", HTTP_AUTHORIZATION=f"Bearer {value}").status_code == 200


def test_signing_in_is_counted_by_address(allow, cast):
    allow(sign_in=2)
    form = {"username": "olivia", "password": "x"}
    first, _, third = (Client().post("/login", form) for _ in range(3))

    assert first.status_code == 200
    assert third.status_code == 429
    assert int(third["Retry-After"]) in about(1800)
    assert "Too many requests" in third.content.decode()
    assert Client().get("/login").status_code == 200


def test_a_page_is_answered_with_a_page_under_the_strict_policy(allow, cast):
    allow(read=1)
    client = session(cast.vera)
    client.get("/runs")

    answer = client.get("/runs")

    assert answer.status_code == 429
    assert int(answer["Retry-After"]) in about(3600)
    assert f"Wait {answer['Retry-After']} seconds" in answer.content.decode()
    directives = answer["Content-Security-Policy"].split("; ")
    assert "script-src 'self'" in directives


def test_runs_are_counted_by_person_and_by_organization(allow, cast):
    project = make_project(organization=cast.organization)
    agent = make_agent(organization=cast.organization)
    body = {"project": project.slug, "agent": agent.slug, "input": {}}

    def submit(user, name):
        return api(user).post("/api/run", body, headers=key(name)).status_code

    allow(submit=2, submit_organization=3)
    assert [submit(cast.oscar, f"o{n}") for n in range(3)] == [202, 202, 429]
    assert [submit(cast.adam, f"a{n}") for n in range(2)] == [202, 429]


def test_exports_have_a_bucket_of_their_own(allow, cast):
    allow(export=1)
    client = session(cast.olivia)
    client.get("/api/audit/verify")

    assert client.get("/api/audit/verify").status_code == 429
    assert client.get("/api/me").status_code == 200


@pytest.mark.parametrize("path", ["/api/events/stream", "/api/events"])
def test_opening_streams_is_counted(allow, path):
    allow(stream=1)
    project = make_project()
    client = api(make_user(role=Role.VIEWER, project=project))
    words = {"HTTP_ACCEPT": "text/event-stream"}

    assert statuses(client, f"{path}?project={project.slug}", 2, **words) == [200, 429]


def test_a_person_holds_so_many_streams_open_and_no_more(settings):
    settings.AOS_STREAMS_PER_PERSON = 1
    project = make_project()
    vera = make_user(role=Role.VIEWER, project=project)
    place = streams.enter(str(vera.pk))
    ask = f"/api/events/stream?project={project.slug}"

    refused = problem(api(vera).get(ask))
    place.leave()

    assert (refused["status"], refused["code"]) == (429, "too_many_streams")
    assert api(vera).get(ask).status_code == 200


def test_whether_a_process_lives_is_never_refused(allow):
    allow(anonymous=1)

    assert statuses(Client(), "/healthz", 5) == [200] * 5
    assert statuses(Client(), "/readyz", 2)[1] == 429


def test_every_route_with_a_limit_of_its_own_exists():
    known = {route for route, _ in ROUTES}

    assert {route for _, route in limiting.SPECIAL} - known == set()
    assert known >= limiting.FREE


async def closing(headers, query):
    connection = WebsocketCommunicator(application, f"/ws/events?{query}", headers=headers)
    accepted, _ = await connection.connect(timeout=5)
    assert accepted
    async with asyncio.timeout(5):
        message = await connection.receive_output()
    await connection.disconnect()
    return message.get("code"), message.get("reason") or json.loads(message["text"])


@pytest.mark.parametrize("which", ["rate", "places"])
async def test_a_socket_that_is_one_too_many_is_told_to_come_later(live, settings, allow, which):
    def scene():
        project = make_project()
        vera = make_user(role=Role.VIEWER, project=project)
        token = make_token(vera)
        if which == "rate":
            allow(stream=1)
            limits.take(*limiting.of_person(vera, "stream", program=True))
        else:
            settings.AOS_STREAMS_PER_PERSON = 1
            streams.enter(str(vera.pk))
        return project, token

    project, token = await sync_to_async(scene)()

    code, reason = await closing(
        [(b"authorization", f"Bearer {token}".encode())], f"project={project.slug}"
    )

    assert code == 1013
    assert "later" in reason


async def test_strangers_knocking_at_sockets_share_the_bucket_of_their_address(live, allow):
    allow(anonymous=2)
    bad = [(b"authorization", b"Bearer aos_pat_x")]

    told = [(await closing(bad, "project=x"))[0] for _ in range(4)]

    assert told == [4401, 4401, 1013, 1013]
