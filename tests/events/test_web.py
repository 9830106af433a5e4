"""Sockets and streams of a real web process, over real connections."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import websockets
from asgiref.sync import sync_to_async
from django.db import connection, connections

from apps.identity.actor import Actor
from apps.identity.models import ApiToken
from apps.identity.services import tokens
from apps.identity.types import Role
from tests.events.cast import publish, token_for
from tests.factories import make_project, make_user

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
async def scene(web):
    """A project with three events, Vera who may view it, and the headers of her token."""

    @sync_to_async
    def make():
        project = make_project()
        vera = make_user(role=Role.VIEWER, project=project)
        publish(project, 3)
        return project, vera, {"Authorization": f"Bearer {token_for(vera)}"}

    yield await make()
    await sync_to_async(connections.close_all)()


@sync_to_async
def publish_(project, count=1):
    publish(project, count)


@sync_to_async
def revoke(user):
    tokens.revoke(by=Actor(user=user), token=ApiToken.objects.get(user=user))


@sync_to_async
def sessions():
    """Connections of other processes to this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend'"
        )
        return cursor.fetchone()[0]


@asynccontextmanager
async def stream(web, headers, **params):
    """The parsed messages of ``/api/events/stream``."""
    timeout = httpx.Timeout(20)
    async with (
        httpx.AsyncClient(base_url=web.url, headers=headers, timeout=timeout) as client,
        client.stream("GET", "/api/events/stream", params=params) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield response, messages(response)


async def messages(response):
    found: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        else:
            yield found
            found = {}


async def take(stream_of_messages, count):
    async with asyncio.timeout(15):
        return [await anext(stream_of_messages) for _ in range(count)]


async def test_a_socket_delivers_backlog_and_news(web, scene):
    project, _, headers = scene
    async with websockets.connect(web.events(project), additional_headers=headers) as socket:
        backlog = [json.loads(await socket.recv()) for _ in range(3)]
        await publish_(project)
        fresh = json.loads(await asyncio.wait_for(socket.recv(), 5))

    assert [event["seq"] for event in backlog] == [1, 2, 3]
    assert fresh["seq"] == 4


async def test_a_revoked_token_ends_socket_and_stream_within_five_seconds(web, scene):
    project, vera, headers = scene
    async with (
        websockets.connect(web.events(project, 3), additional_headers=headers) as socket,
        stream(web, headers, project=project.slug, after=3) as (_, said),
    ):
        await take(said, 1)
        await revoke(vera)
        revoked_at = time.monotonic()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        socket_took = time.monotonic() - revoked_at
        rest = [message async for message in said]
        stream_took = time.monotonic() - revoked_at

    assert closed.value.rcvd.code == 4403
    assert rest == []
    assert max(socket_took, stream_took) <= 5
    denied = httpx.get(
        f"{web.url}/api/events/stream", params={"project": project.slug}, headers=headers
    )
    assert denied.status_code == 401
    assert denied.headers["content-type"] == "application/problem+json"


async def test_a_stream_resumes_behind_the_last_event_id(web, scene):
    project, _, headers = scene
    async with stream(web, headers, project=project.slug) as (response, said):
        hello, *first = await take(said, 4)
    await publish_(project, 2)
    again = headers | {"Last-Event-ID": first[-1]["id"]}
    async with stream(web, again, project=project.slug, after=0) as (_, said):
        _, *second = await take(said, 3)
        await publish_(project)
        (third,) = await take(said, 1)

    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-store"
    assert hello == {"retry": "2000"}
    assert [int(message["id"]) for message in [*first, *second, third]] == [1, 2, 3, 4, 5, 6]
    assert {message["event"] for message in first} == {"task.progress.milestone"}
    assert json.loads(third["data"])["seq"] == 6


async def test_the_list_streams_when_asked_for_a_stream(web, scene):
    project, _, headers = scene
    async with (
        httpx.AsyncClient(base_url=web.url) as client,
        client.stream(
            "GET",
            "/api/events",
            params={"project": project.slug},
            headers=headers | {"Accept": "text/event-stream"},
        ) as response,
    ):
        _, *events = await take(messages(response), 4)

    assert [int(event["id"]) for event in events] == [1, 2, 3]


async def test_open_streams_hold_neither_threads_nor_database_sessions(web, scene):
    project, _, headers = scene
    threads = Path(f"/proc/{web.process.pid}/task")
    async with asyncio.TaskGroup() as group:
        done = asyncio.Event()
        ready = asyncio.Semaphore(0)

        async def hold():
            async with stream(web, headers, project=project.slug) as (_, said):
                await take(said, 4)
                ready.release()
                await done.wait()

        for _ in range(40):
            group.create_task(hold())
        for _ in range(40):
            await ready.acquire()
        open_threads, open_sessions = len(list(threads.iterdir())), await sessions()
        done.set()

    assert open_threads < 20
    assert open_sessions < 30


async def test_a_web_process_that_is_told_to_stop_ends_its_streams_and_sockets(web, scene):
    project, _, headers = scene
    async with (
        websockets.connect(web.events(project, 3), additional_headers=headers) as socket,
        stream(web, headers, project=project.slug, after=3) as (_, said),
    ):
        await take(said, 1)
        asked_at = time.monotonic()
        web.process.send_signal(signal.SIGTERM)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        rest = [message async for message in said]
        await asyncio.to_thread(web.process.wait, 10)

    assert closed.value.rcvd.code == 1012
    assert rest == []
    assert time.monotonic() - asked_at < 3


async def test_twenty_sockets_miss_nothing_while_they_break_and_redis_restarts(web, scene, valkey):
    project, _, headers = scene
    total = 1_503
    dice = random.Random(7)  # repeatable, not secret
    breaks = 0

    async def follow(seen):
        """A client as ours: reconnects with the last seq it has."""
        nonlocal breaks
        while not seen or seen[-1] < total:
            url = web.events(project, seen[-1] if seen else 0)
            try:
                async with websockets.connect(url, additional_headers=headers) as socket:
                    until = time.monotonic() + dice.uniform(0.3, 2)
                    while seen[-1:] != [total] and time.monotonic() < until:
                        seen.append(json.loads(await asyncio.wait_for(socket.recv(), 2))["seq"])
                    socket.transport.abort()
                    breaks += 1
            except (TimeoutError, websockets.ConnectionClosed):
                continue

    async def write():
        for _ in range(300):
            await publish_(project, 5)
            await asyncio.sleep(0.02)

    async def trouble():
        for _ in range(2):
            await asyncio.sleep(2)
            await asyncio.to_thread(valkey, False)
            await asyncio.sleep(1.5)
            await asyncio.to_thread(valkey, True)

    everything: list[list[int]] = [[] for _ in range(20)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for seen in everything:
            group.create_task(follow(seen))
        group.create_task(write())
        group.create_task(trouble())

    assert breaks >= 60
    assert all(seen == list(range(1, total + 1)) for seen in everything)
