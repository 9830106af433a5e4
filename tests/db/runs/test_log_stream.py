"""A run's own log as a stream: everything from the asked position on, and an end with the run."""

from __future__ import annotations

import asyncio
import json

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from apps.events import feed
from apps.runs.services import control
from tests.faces import problem
from tests.factories import make_actor, make_cast, make_project, make_run, make_token

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def live(async_db):
    yield
    await feed.stop()


@pytest.fixture
async def by(live):
    return await sync_to_async(make_actor)()


@pytest.fixture
async def run(by):
    return await sync_to_async(_run_of)(by)


def _run_of(by):
    return make_run(project=make_project(organization=by.user.organization), by=by)


async def follow(run, by, *, after=0, **headers):
    token = await sync_to_async(make_token)(by.user, "run:read")
    return await AsyncClient().get(
        f"/api/runs/{run.public_id}/events?after={after}",
        headers={"Authorization": f"Bearer {token}"} | STREAM | headers,
    )


async def lines(response):
    """The events of the whole stream, once it has ended."""
    async with asyncio.timeout(10):
        text = b"".join([chunk async for chunk in response.streaming_content]).decode()
    return [
        dict(line.split(": ", 1) for line in block.splitlines())
        for block in text.split("\n\n")
        if block.startswith("id:")
    ]


async def test_the_stream_of_a_finished_run_is_its_log_and_ends(by, run):
    await sync_to_async(control.cancel)(by=by, run=run)

    response = await follow(run, by)
    found = await lines(response)

    assert response["Content-Type"] == "text/event-stream"
    assert response["X-Accel-Buffering"] == "no"
    assert [line["id"] for line in found] == [str(n + 1) for n in range(len(found))]
    assert {line["event"] for line in found} == {"run"}
    last = json.loads(found[-1]["data"])
    assert set(last) == {"seq", "kind", "payload", "at"}
    assert last["payload"]["state"] == "cancelled"


async def test_a_follower_hears_what_comes_and_is_let_go_at_the_end(by, run):
    response = await follow(run, by)
    reading = asyncio.create_task(lines(response))
    await asyncio.sleep(0.3)

    still_open = not reading.done()
    await sync_to_async(control.cancel)(by=by, run=run)
    found = await reading

    assert still_open
    assert json.loads(found[-1]["data"])["payload"]["state"] == "cancelled"


@pytest.mark.parametrize("how", ["query", "header"])
async def test_a_follower_goes_on_where_it_was(by, run, how):
    await sync_to_async(control.cancel)(by=by, run=run)

    if how == "query":
        response = await follow(run, by, after=1)
    else:
        response = await follow(run, by, **{"Last-Event-ID": "1"})

    assert (await lines(response))[0]["id"] == "2"


async def test_a_stranger_gets_a_problem_not_a_stream(by, run):
    cast = await sync_to_async(make_cast)()
    token = await sync_to_async(make_token)(cast.sam)

    response = await AsyncClient().get(
        f"/api/runs/{run.public_id}/events",
        headers={"Authorization": f"Bearer {token}"} | STREAM,
    )

    assert response.status_code == 404
    assert problem(response)["code"] == "not_found"


async def test_a_senseless_position_is_refused(by, run):
    response = await follow(run, by, **{"Last-Event-ID": "yesterday"})

    assert response.status_code == 400
    assert problem(response)["code"] == "bad_request"
