"""The wire format of streams, and when they speak, ask and end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from apps.core.rest import sse


@dataclass
class Message:
    seq: int
    type: str = "line"
    text: str = "{}"


@dataclass
class Messages:
    """A log that gives a batch per read, an empty one for a read in vain, and is then over."""

    batches: list[list[Message]] = field(default_factory=list)
    over: bool = False
    is_open: bool = False

    async def read(self, *, timeout_s):
        batch = self.batches.pop(0)
        if not batch:
            await asyncio.sleep(timeout_s)
        self.over = not self.batches
        return batch


@asynccontextmanager
async def opened(messages):
    messages.is_open = True
    yield messages
    messages.is_open = False


async def yes():
    return True


async def said_by(messages, allowed=yes):
    async with asyncio.timeout(3):
        response = sse.response(opened(messages), allowed=allowed)
        return [piece.decode() async for piece in response]


async def test_a_message_has_an_id_a_type_and_one_line_of_data():
    pieces = await said_by(Messages([[Message(7, "task.receipt", '{"a":"ü\\n"}')]]))

    assert pieces == [
        "retry: 2000\n\n",
        'id: 7\nevent: task.receipt\ndata: {"a":"ü\\n"}\n\n',
    ]


async def test_messages_that_are_there_together_are_sent_together():
    pieces = await said_by(Messages([[Message(1), Message(2)], [Message(3)]]))

    assert [piece.count("data:") for piece in pieces] == [0, 2, 1]


async def test_silence_is_broken_by_comments(monkeypatch):
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(sse, "RECHECK_S", 0.02)

    pieces = await said_by(Messages([[], [], [], [], [], [], [Message(1)]]))

    assert pieces[1:-1]
    assert set(pieces[1:-1]) == {": keep-alive\n\n"}
    assert len(pieces) <= 5


async def test_nothing_is_passed_on_after_access_was_withdrawn(monkeypatch):
    monkeypatch.setattr(sse, "RECHECK_S", 0.05)
    messages = Messages([[Message(1)], [], [Message(2)]])
    answers = [False]

    async def allowed():
        return answers.pop()

    pieces = await said_by(messages, allowed=allowed)

    assert [piece for piece in pieces if "data" in piece] == ["id: 1\nevent: line\ndata: {}\n\n"]
    assert not messages.is_open
    assert answers == []


async def test_access_is_asked_for_again_within_five_seconds():
    assert sse.RECHECK_S < 5


async def test_a_busy_stream_is_asked_as_well(monkeypatch):
    monkeypatch.setattr(sse, "RECHECK_S", 0.0)
    asked = []

    async def allowed():
        asked.append(True)
        return len(asked) < 3

    pieces = await said_by(Messages([[Message(n)] for n in range(1, 9)]), allowed=allowed)

    assert len(pieces) == 3


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-store"),
        ("X-Accel-Buffering", "no"),
    ],
)
async def test_no_proxy_is_to_keep_or_collect_it(header, value):
    response = sse.response(opened(Messages(over=True)), allowed=yes)

    assert response.headers[header] == value
