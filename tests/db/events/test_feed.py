"""A listener gets every entry of a log, in order, once, whatever happens to hints and readers."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import OperationalError
from redis.exceptions import ConnectionError as RedisAway

from apps.events import feed, hints
from apps.events.feed import Frame, Page
from tests.events.cast import publish
from tests.factories import make_project

project_ = sync_to_async(make_project)
publish_ = sync_to_async(publish)


async def take(listener, count, within=5.0):
    """The next ``count`` frames."""
    frames = []
    async with asyncio.timeout(within):
        while len(frames) < count:
            frames += await listener.read(timeout_s=within)
    return frames


async def hearing(live):
    """Wait until the subscription has heard itself."""
    async with asyncio.timeout(5):
        while not live._subscription.hears:
            await asyncio.sleep(0.02)


@pytest.fixture
def deaf(monkeypatch):
    """Hints are swallowed: nobody is ever told anything."""
    monkeypatch.setattr(hints._teller, "tell", lambda _: None)


@dataclass
class Pages:
    """A log made by the test."""

    topic: str = "test:log"
    far: int = 1_000_000
    frames: list[Frame] = field(default_factory=list)
    closed: bool = False
    reads: list[int] = field(default_factory=list)
    trouble: list[Exception] = field(default_factory=list)

    def grow(self, count=1, text=""):
        start = len(self.frames)
        for seq in range(start + 1, start + count + 1):
            self.frames.append(Frame(seq=seq, type="line", text=text or str(seq)))

    def head(self):
        if self.trouble:
            raise self.trouble.pop()
        return len(self.frames)

    def read(self, after, limit):
        if self.trouble:
            raise self.trouble.pop()
        self.reads.append(after)
        page = self.frames[after : after + limit]
        return Page(frames=page, closed=self.closed and after + limit >= len(self.frames))


async def test_the_backlog_comes_first_and_then_what_happens(live):
    project = await project_()
    await publish_(project, 3)

    async with feed.project(
        project.pk, organization_id=project.organization_id, after=1
    ) as listener:
        backlog = await take(listener, 2)
        await publish_(project, 2)
        fresh = await take(listener, 2)

    assert [frame.seq for frame in backlog + fresh] == [2, 3, 4, 5]
    assert json.loads(fresh[0].text)["payload"] == {"n": 4}


async def test_a_listener_can_be_iterated_over(live):
    project = await project_()
    await publish_(project, 3)
    seen = []

    async with feed.project(
        project.pk, organization_id=project.organization_id, after=0
    ) as listener:
        async for frame in listener:
            seen.append(frame.seq)
            if len(seen) == 3:
                await publish_(project)
            if len(seen) == 4:
                break

    assert seen == [1, 2, 3, 4]


async def test_a_hint_is_faster_than_the_clock(live):
    project = await project_()
    async with feed.project(
        project.pk, organization_id=project.organization_id, after=0
    ) as listener:
        await hearing(live)
        await listener.read(timeout_s=0.1)
        await publish_(project)
        (frame,) = await take(listener, 1, within=feed.DEAF_POLL_S / 2)

    assert frame.seq == 1


async def test_lost_hints_cost_seconds_and_no_event(live, deaf, monkeypatch):
    monkeypatch.setattr(feed, "POLL_S", 0.3)
    project = await project_()
    async with feed.project(
        project.pk, organization_id=project.organization_id, after=0
    ) as listener:
        await hearing(live)
        await listener.read(timeout_s=0.1)
        await publish_(project, 4)
        frames = await take(listener, 4, within=2)

    assert [frame.seq for frame in frames] == [1, 2, 3, 4]


async def test_without_the_clock_a_lost_hint_would_cost_the_event(live, deaf):
    """The test above has teeth: the clock is what saves it."""
    project = await project_()
    async with feed.project(
        project.pk, organization_id=project.organization_id, after=0
    ) as listener:
        await hearing(live)
        await listener.read(timeout_s=0.1)
        await publish_(project)
        frames = await listener.read(timeout_s=1)

    assert frames == []


async def test_a_hundred_listeners_cost_one_read_and_share_one_text(live):
    log = Pages()
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(feed.follow(log, after=0)) for _ in range(100)]
        await asyncio.gather(*(each.read(timeout_s=0.05) for each in listeners))
        log.grow(10)
        before = len(log.reads)
        live._topics[log.topic].look()
        taken = await asyncio.gather(*(take(each, 10) for each in listeners))

    assert all([frame.seq for frame in each] == list(range(1, 11)) for each in taken)
    assert len({id(frame) for each in taken for frame in each}) == 10
    assert len(log.reads) == before + 1


async def test_a_slow_listener_reads_what_is_no_longer_kept_from_the_log(live, monkeypatch):
    monkeypatch.setattr(feed, "KEPT", 5)
    log = Pages()
    async with feed.follow(log, after=0) as slow:
        await slow.read(timeout_s=0.05)
        log.grow(40)
        live._topics[log.topic].look()
        await asyncio.sleep(0.1)
        frames = await take(slow, 40)

    assert len(live.readers._pool._threads) <= 4
    assert [frame.seq for frame in frames] == list(range(1, 41))


async def test_long_texts_are_kept_by_size_and_not_by_number(live, monkeypatch):
    monkeypatch.setattr(feed, "KEPT_CHARACTERS", 1000)
    log = Pages()
    async with feed.follow(log, after=0) as listener:
        await listener.read(timeout_s=0.05)
        log.grow(50, text="x" * 100)
        live._topics[log.topic].look()
        frames = await take(listener, 50)
        kept = live._topics[log.topic]._newest

    assert [frame.seq for frame in frames] == list(range(1, 51))
    assert len(kept) == 10


async def test_a_long_log_comes_in_pages(live):
    log = Pages()
    log.grow(1_203)
    async with feed.follow(log, after=0) as listener:
        frames = await take(listener, 1_203)

    assert [frame.seq for frame in frames] == list(range(1, 1_204))


async def test_who_is_too_far_behind_is_told_to_start_anew(live):
    log = Pages(far=100)
    log.grow(101)
    async with feed.follow(log, after=0) as listener:
        (frame,) = await take(listener, 1)
        log.grow(1)
        live._topics[log.topic].look()
        (following,) = await take(listener, 1)

    assert (frame.type, json.loads(frame.text)) == ("resync", {"type": "resync", "seq": 101})
    assert following.seq == 102


async def test_who_is_just_within_reach_gets_everything(live):
    log = Pages(far=100)
    log.grow(100)
    async with feed.follow(log, after=0) as listener:
        frames = await take(listener, 100)

    assert [frame.seq for frame in frames] == list(range(1, 101))


async def test_a_project_is_far_behind_after_five_thousand_events(live):
    project = await project_()
    assert feed.ProjectLog(project.pk, project.organization_id).far == 5_000


async def test_a_cursor_beyond_the_log_is_mended(live):
    project = await project_()
    await publish_(project, 2)
    async with feed.project(
        project.pk, organization_id=project.organization_id, after=90
    ) as listener:
        (frame,) = await take(listener, 1)
        await publish_(project)
        (following,) = await take(listener, 1)

    assert (frame.type, frame.seq) == ("resync", 2)
    assert following.seq == 3


async def test_a_cursor_that_is_newer_than_what_this_process_knows_is_not_beyond_the_log(
    live, deaf
):
    project = await project_()
    async with feed.project(project.pk, organization_id=project.organization_id, after=0) as first:
        await first.read(timeout_s=0.1)
        await publish_(project, 3)
        async with feed.project(
            project.pk, organization_id=project.organization_id, after=3
        ) as second:
            silence = await second.read(timeout_s=0.2)

    assert silence == []


async def test_a_closed_log_ends_its_listeners(live):
    log = Pages()
    log.grow(3)
    async with feed.follow(log, after=0) as listener:
        seen = [frame.seq for frame in await take(listener, 3)]
        log.grow(1)
        log.closed = True
        live._topics[log.topic].look()
        seen += [frame.seq async for frame in listener]
        is_over = listener.over

    assert seen == [1, 2, 3, 4]
    assert is_over


async def test_a_log_that_is_closed_and_read_ends_at_once(live):
    log = Pages(closed=True)
    log.grow(3)
    async with asyncio.timeout(2), feed.follow(log, after=3) as listener:
        seen = [frame async for frame in listener]

    assert seen == []


async def test_stopping_the_process_ends_listeners(live):
    project = await project_()
    async with (
        asyncio.timeout(2),
        feed.project(project.pk, organization_id=project.organization_id, after=0) as listener,
    ):
        await listener.read(timeout_s=0.1)
        live.close()
        seen = [frame async for frame in listener]

    assert seen == []
    assert listener.over


async def test_nothing_is_followed_when_nobody_listens(live):
    project = await project_()
    async with (
        feed.project(project.pk, organization_id=project.organization_id, after=0),
        feed.project(project.pk, organization_id=project.organization_id, after=0),
    ):
        followed = live.following

    assert followed == 1
    assert live.following == 0


async def test_a_bug_in_a_log_ends_its_listeners_instead_of_silencing_them(live, caplog):
    log = Pages(trouble=[KeyError("bug")])
    async with asyncio.timeout(2), feed.follow(log, after=0) as listener:
        seen = [frame async for frame in listener]
        failure = live._tasks[log.topic].exception()

    assert seen == []
    assert isinstance(failure, KeyError)


async def test_listeners_wait_while_the_database_is_away_and_say_so_once(live, caplog):
    log = Pages(trouble=[OperationalError("gone"), OperationalError("gone")])
    log.grow(2)
    with caplog.at_level(logging.INFO, logger="apps.events.readers"):
        async with feed.follow(log, after=0) as listener:
            frames = await take(listener, 2)

    assert [frame.seq for frame in frames] == [1, 2]
    assert [record.message for record in caplog.records] == [
        "streams wait for the database",
        "streams go on",
    ]


async def test_a_subscription_that_breaks_is_made_anew(live, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="apps.events.feed")
    monkeypatch.setattr(feed, "ECHO_S", 0.1)
    monkeypatch.setattr(feed, "_PATIENCE_S", 0.1)
    project = await project_()
    layer = get_channel_layer()
    send = layer._get_layer().send
    async with feed.project(
        project.pk, organization_id=project.organization_id, after=0
    ) as listener:
        await hearing(live)

        async def broken(*_):
            raise RedisAway("gone")

        monkeypatch.setattr(layer._get_layer(), "send", broken)
        async with asyncio.timeout(5):
            while live._subscription.hears:
                await asyncio.sleep(0.02)
        monkeypatch.setattr(layer._get_layer(), "send", send)
        await hearing(live)
        await publish_(project)
        (frame,) = await take(listener, 1, within=1)

    assert frame.seq == 1
    # On a busy machine an echo may be late before.
    assert [record.message for record in caplog.records][-3:] == [
        "hints arrive",
        "no hints arrive, polling goes on",
        "hints arrive",
    ]


async def test_a_subscription_that_goes_silent_is_made_anew(live, monkeypatch):
    """As after a network fault: nothing raises, nothing arrives."""
    monkeypatch.setattr(feed, "ECHO_S", 0.1)
    monkeypatch.setattr(feed, "_PATIENCE_S", 0.5)
    project = await project_()
    async with feed.project(project.pk, organization_id=project.organization_id, after=0):
        await hearing(live)
        inner = get_channel_layer()._get_layer()
        inner.channels.clear()
        async with asyncio.timeout(5):
            # Deaf for as long as it takes to subscribe again, which may be between two looks.
            while live._subscription.hears and not inner.channels:
                await asyncio.sleep(0.02)
        await hearing(live)

    assert len(inner.channels) == 1


async def test_a_process_has_one_subscription_however_many_listen(live):
    projects = [await project_() for _ in range(3)]
    async with (
        feed.project(projects[0].pk, organization_id=projects[0].organization_id, after=0),
        feed.project(projects[1].pk, organization_id=projects[1].organization_id, after=0),
        feed.project(projects[2].pk, organization_id=projects[2].organization_id, after=0),
    ):
        await hearing(live)
        channels = dict(get_channel_layer()._get_layer().channels)

    assert len(channels) == 1
