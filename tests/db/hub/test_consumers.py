"""The socket of value events: who is let in, what is sent, and how it ends."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore

from aos_project.asgi import application
from apps.events import feed, hints
from apps.events.models import AuditEntry
from apps.hub import consumers
from apps.identity import denials
from apps.identity.actor import Actor
from apps.identity.models import ApiToken, Binding
from apps.identity.services import tokens
from apps.identity.types import Role
from tests.events.cast import publish, token_for
from tests.factories import make_organization, make_project, make_user, unwatched

OUR_PAGE = b"http://127.0.0.1:8000"
HOST = (b"host", b"127.0.0.1:8000")
publish_ = sync_to_async(publish)


@sync_to_async
def scene():
    """A project with three events, and Vera who may view it."""
    project = make_project()
    publish(project, 3)
    return project, make_user(role=Role.VIEWER, project=project)


@sync_to_async
def program(user, *scopes):
    return [(b"authorization", f"Bearer {token_for(user, *scopes)}".encode())]


@sync_to_async
def browser(user, origin=OUR_PAGE):
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[-1]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    cookie = f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
    return [HOST, (b"origin", origin), (b"cookie", cookie.encode())]


@asynccontextmanager
async def socket(query, headers=()):
    connection = WebsocketCommunicator(application, f"/ws/events?{query}", headers=list(headers))
    accepted, _ = await connection.connect(timeout=5)
    assert accepted
    yield connection
    await connection.disconnect()


async def closing_of(query, headers=(), within=5):
    """The close code of a socket that is not let in. It is accepted first: pages must see why."""
    async with socket(query, headers) as connection:
        message = await connection.receive_output(within)
        assert message["type"] == "websocket.close"
        assert message["reason"]
        return message["code"]


async def receive(connection, count):
    return [json.loads(await connection.receive_from(timeout=5)) for _ in range(count)]


async def test_a_program_with_a_token_gets_backlog_and_news(live):
    project, vera = await scene()
    async with socket(f"project={project.pk}&after=1", await program(vera)) as connection:
        backlog = await receive(connection, 2)
        await publish_(project)
        (fresh,) = await receive(connection, 1)

    assert [event["seq"] for event in [*backlog, fresh]] == [2, 3, 4]
    assert fresh["project"] == str(project.pk)
    assert fresh["payload"] == {"n": 4}


async def test_a_browser_with_a_session_is_let_in_from_our_own_pages(live):
    project, vera = await scene()
    async with socket(f"project={project.slug}", await browser(vera)) as connection:
        events = await receive(connection, 3)

    assert [event["seq"] for event in events] == [1, 2, 3]


async def test_a_session_is_worth_nothing_on_somebody_elses_page(live):
    project, vera = await scene()
    headers = await browser(vera, origin=b"https://evil.example")
    connection = WebsocketCommunicator(
        application, f"/ws/events?project={project.slug}", headers=headers
    )

    accepted, _ = await connection.connect()

    assert not accepted


async def test_who_was_not_let_in_is_on_record(live):
    project, vera = await scene()
    denials.forget()

    await closing_of(f"project={project.slug}", await program(vera, "run:read"))

    entry = await AuditEntry.objects.aget(action="access.denied")
    assert (entry.actor_id, entry.resource_id) == (vera.pk, "event.read")
    assert entry.detail == {"reason": "scope_missing"}
    assert entry.token_id is not None


async def test_a_session_without_an_origin_is_refused(live):
    project, vera = await scene()
    cookie_only = (await browser(vera))[1:]
    connection = WebsocketCommunicator(
        application, f"/ws/events?project={project.slug}", headers=cookie_only
    )

    accepted, _ = await connection.connect()

    assert not accepted


async def test_another_path_is_refused(live):
    connection = WebsocketCommunicator(
        application, "/ws/elsewhere", headers=[(b"authorization", b"Bearer x")]
    )

    accepted, _ = await connection.connect()

    assert not accepted


async def test_who_is_not_signed_in_is_told_so(live):
    project, _ = await scene()
    anonymous = [HOST, (b"origin", OUR_PAGE)]
    made_up = [(b"authorization", b"Bearer aos_pat_nobody_knows_this")]

    assert await closing_of(f"project={project.slug}", anonymous) == 4401
    assert await closing_of(f"project={project.slug}", made_up) == 4401


async def test_a_strangers_project_closes_like_one_that_does_not_exist(live):
    project, _ = await scene()
    sam = await sync_to_async(make_user)(role=Role.OWNER)
    headers = await program(sam)

    assert await closing_of(f"project={project.pk}", headers) == 4404
    assert await closing_of(f"project={project.slug}", headers) == 4404
    assert await closing_of(f"project={uuid4()}", headers) == 4404
    assert await closing_of("project=nowhere", headers) == 4404
    assert await closing_of("project=%FF", headers) == 4404


@pytest.mark.parametrize(
    "query",
    [
        "",
        "project=",
        "project=a%00b",
        "project={slug}&after=-1",
        "project={slug}&after=soon",
        "project={slug}&after=9223372036854775808",
        "project={slug}&afetr=2",
        "&".join(f"a{n}=1" for n in range(2_000)),
    ],
)
async def test_a_bad_parameter_closes_the_socket(query, live):
    project, vera = await scene()

    code = await closing_of(query.format(slug=project.slug), await program(vera))

    assert code == 4400


async def test_a_token_without_the_scope_is_refused(live):
    project, vera = await scene()

    assert await closing_of(f"project={project.slug}", await program(vera, "run:read")) == 4403


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr(consumers, "RECHECK_S", 0.2)


def revoke_token(user):
    tokens.revoke(by=Actor(user=user), token=ApiToken.objects.get(user=user))


@unwatched()
def expire_token(user):
    ApiToken.objects.filter(user=user).update(expires_at="2020-01-01T00:00:00Z")


@unwatched()
def disable(user):
    user.is_active = False
    user.save(update_fields=["is_active"])


@unwatched()
def withdraw_role(user):
    Binding.objects.filter(user=user).delete()


@unwatched()
def move_away(user):
    user.organization = make_organization()
    user.save(update_fields=["organization"])


@unwatched()
def change_password(user):
    user.set_password("another one entirely")
    user.save(update_fields=["password"])


def sign_out(user):
    del user
    from django.contrib.sessions.models import Session

    Session.objects.all().delete()


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    ("by", "withdrawal"),
    [
        (program, revoke_token),
        (program, expire_token),
        (program, disable),
        (program, withdraw_role),
        (program, move_away),
        (browser, disable),
        (browser, withdraw_role),
        (browser, change_password),
        (browser, sign_out),
    ],
)
async def test_access_that_is_withdrawn_closes_an_open_socket(by, withdrawal, live):
    project, vera = await scene()
    async with socket(f"project={project.slug}&after=3", await by(vera)) as connection:
        await connection.receive_nothing(0.5)
        await sync_to_async(withdrawal)(vera)
        message = await connection.receive_output(3)

    assert message == {
        "type": "websocket.close",
        "code": 4403,
        "reason": "Access was withdrawn.",
    }


async def test_access_is_asked_for_again_within_five_seconds():
    # The question itself takes a moment too.
    assert consumers.RECHECK_S <= 4.5


async def test_the_socket_hears_nothing_but_goes_on(live):
    project, vera = await scene()
    async with socket(f"project={project.slug}", await program(vera)) as connection:
        await receive(connection, 3)
        for noise in ("ping", '{"type":"run.submit"}', "\x00", "ü" * 1000):
            await connection.send_to(text_data=noise)
        await connection.send_to(bytes_data=b"\xff\x00")
        await publish_(project)
        (event,) = await receive(connection, 1)

    assert event["seq"] == 4


@pytest.mark.parametrize(
    ("noise", "times", "code"), [("x" * (64 * 1024 + 1), 1, 1009), ("x", 100, 1008)]
)
async def test_too_much_noise_closes_the_socket(noise, times, code, live):
    project, vera = await scene()
    async with socket(f"project={project.slug}&after=3", await program(vera)) as connection:
        for _ in range(times):
            await connection.send_to(text_data=noise)
        message = await connection.receive_output(3)

    assert message["code"] == code


async def test_a_stopping_server_says_that_it_comes_back(live):
    project, vera = await scene()
    async with socket(f"project={project.slug}&after=3", await program(vera)) as connection:
        await connection.receive_nothing(0.5)
        live.close()
        message = await connection.receive_output(3)

    assert message["code"] == 1012


async def test_who_is_too_far_behind_starts_anew(live, monkeypatch):
    monkeypatch.setattr(feed.ProjectLog, "far", 2)
    project, vera = await scene()
    async with socket(f"project={project.slug}", await program(vera)) as connection:
        (first,) = await receive(connection, 1)
        await publish_(project)
        (second,) = await receive(connection, 1)

    assert first == {"type": "resync", "seq": 3}
    assert second["seq"] == 4


async def test_a_deaf_web_process_still_delivers(live, monkeypatch):
    monkeypatch.setattr(hints._teller, "tell", lambda _: None)
    monkeypatch.setattr(feed, "POLL_S", 0.3)
    monkeypatch.setattr(feed, "DEAF_POLL_S", 0.3)
    project, vera = await scene()
    async with socket(f"project={project.slug}&after=3", await program(vera)) as connection:
        await connection.receive_nothing(0.3)
        await publish_(project, 5)
        events = await receive(connection, 5)

    assert [event["seq"] for event in events] == [4, 5, 6, 7, 8]


async def test_a_closed_socket_leaves_nothing_behind(live):
    project, vera = await scene()
    async with socket(f"project={project.slug}", await program(vera)) as connection:
        await receive(connection, 3)
        during = live.following
    async with asyncio.timeout(2):
        while live.following:
            await asyncio.sleep(0.01)
    tasks = {task.get_coro().__name__ for task in asyncio.all_tasks()}

    assert during == 1
    assert not tasks & {"_speak", "_ignore", "_keep_asking", "follow"}
