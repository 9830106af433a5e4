"""Hints reach the web processes from anywhere, and never harm whoever sends them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from channels.layers import channel_layers, get_channel_layer

from apps.events import hints


@asynccontextmanager
async def hearing():
    """What a web process hears: a queue of lists of topics."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(hints.GROUP, channel)
    # Subscribing is acknowledged by the server only after the call has returned.
    await layer.send(channel, {"type": "echo"})
    await layer.receive(channel)

    async def topics(within=3.0):
        async with asyncio.timeout(within):
            return (await layer.receive(channel))["topics"]

    yield topics
    await layer.flush()


@pytest.fixture
def away(settings):
    """A Redis that does not answer. Call it to have the real one back."""
    real = settings.CHANNEL_LAYERS
    settings.CHANNEL_LAYERS = {
        "default": real["default"] | {"CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]}}
    }

    def back():
        settings.CHANNEL_LAYERS = real
        channel_layers.backends.clear()

    return back


async def test_a_hint_names_the_log_that_grew():
    project, run = uuid4(), uuid4()
    async with hearing() as topics:
        hints.send(project_id=project)
        first = await topics()
        hints.send_run(run)
        second = await topics()

    assert first == [f"project:{project}"]
    assert second == [f"run:{run}"]


async def test_a_burst_is_told_as_a_few_messages():
    project = uuid4()
    told = []
    async with hearing() as topics:
        for _ in range(2_000):
            hints.send(project_id=project)
        started = time.monotonic()
        while time.monotonic() - started < 0.5:
            try:
                told.append(await topics(within=0.2))
            except TimeoutError:
                break

    assert told
    assert len(told) <= 10
    assert {topic for topics in told for topic in topics} == {f"project:{project}"}


async def test_hints_can_be_sent_from_any_thread():
    projects = [str(uuid4()) for _ in range(20)]
    async with hearing() as topics:
        threads = [
            threading.Thread(target=hints.send, kwargs={"project_id": project})
            for project in projects
        ]
        for thread in threads:
            thread.start()
        heard = set()
        while len(heard) < 20:
            heard |= set(await topics())

    assert heard == {f"project:{project}" for project in projects}


async def test_a_forked_child_sends_its_own():
    project = uuid4()
    async with hearing() as topics:
        hints.send_run("parent-has-a-thread-now")
        await topics()
        child = os.fork()
        if child == 0:
            hints.send(project_id=project)
            time.sleep(1)
            os._exit(0)
        heard = await topics()
        await asyncio.to_thread(os.waitpid, child, 0)

    assert heard == [f"project:{project}"]


async def test_without_redis_sending_neither_raises_nor_waits(request, caplog):
    caplog.set_level(logging.INFO, logger="apps.events.hints")
    # Listening on the real one before it goes away for the senders: nothing told later is missed.
    async with hearing() as topics:
        back = request.getfixturevalue("away")
        started = time.monotonic()
        for _ in range(200):
            hints.send(project_id=uuid4())
        took = time.monotonic() - started
        await asyncio.sleep(2.5)
        silent = [record.message for record in caplog.records]

        back()
        heard = await topics(within=20)
        await asyncio.sleep(0.1)

    # A caller that waited for a connection would have taken minutes.
    assert took < 2
    assert silent == ["hints are not sent, polling goes on"]
    # What could not be told is told when it can be.
    assert len(heard) >= 200
    assert [record.message for record in caplog.records][1:] == ["hints are sent again"]
