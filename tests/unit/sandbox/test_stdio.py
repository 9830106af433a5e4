"""What a stranger's server may send, and what becomes of it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest

from apps.sandboxes.stdio import GARBAGE_LIMIT, LineLost, ServerUnfit, Splitter, transport

MESSAGE = b'{"jsonrpc":"2.0","id":1,"result":{"word":"x"}}'


class Script:
    """A line that says what it is told to, then ends; what it is sent is kept."""

    def __init__(self, *said, stays=False, deaf=False):
        self.said = list(said)
        self.sent = b""
        self.rests = []
        self.awake = anyio.Event()
        self.stays = stays
        self.deaf = deaf

    async def receive(self):
        if not self.said and self.stays:
            await self.awake.wait()
            self.awake = anyio.Event()
        return self.said.pop(0) if self.said else b""

    async def send(self, data, /):
        if self.deaf:
            raise LineLost
        self.sent += data

    async def rest(self):
        self.rests.append("rest")

    async def wake(self):
        self.rests.append("wake")


def opening(line):
    @asynccontextmanager
    async def opened():
        yield line

    return opened


async def heard(line):
    async with transport(opening(line)) as (read, _):
        return [item async for item in read]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_messages_are_found_however_the_bytes_are_cut(size):
    stream = (MESSAGE + b"\n") * 5 + b"\n\n" + MESSAGE + b"\r\n" + MESSAGE
    splitter = Splitter()

    found = [
        item for at in range(0, len(stream), size) for item in splitter.feed(stream[at : at + size])
    ]

    assert len(found) == 6
    assert all(isinstance(item, SessionMessage) for item in found)


def test_the_longest_message_is_taken_and_a_longer_one_is_the_end():
    splitter = Splitter(line_limit=len(MESSAGE))
    assert isinstance(splitter.feed(MESSAGE + b"\n")[0], SessionMessage)

    (error,) = splitter.feed(MESSAGE + b" \n")

    assert isinstance(error, ServerUnfit)
    assert splitter.is_hopeless


def test_a_message_without_end_is_not_kept():
    splitter = Splitter(line_limit=1000)
    for _ in range(100):
        if splitter.is_hopeless:
            break
        splitter.feed(b"x" * 500)

    assert splitter.is_hopeless
    assert len(splitter._partial) == 0


@pytest.mark.parametrize(
    "line",
    [b"hello", b"[]", b"null", b"{}", b'{"jsonrpc":"1.0","id":1}', b"[" * 100_000, b"\xff\xfe"],
)
def test_what_is_no_message_is_an_error_that_repeats_nothing_of_it(line):
    (error,) = Splitter().feed(line + b"\n")

    assert isinstance(error, ServerUnfit)
    assert str(error) == f"a line of {len(line)} bytes is no message"


def test_some_garbage_is_forgiven_and_nothing_but_garbage_is_not():
    splitter = Splitter()
    for _ in range(10):
        splitter.feed(b"garbage\n" * (GARBAGE_LIMIT - 1) + MESSAGE + b"\n")
        assert not splitter.is_hopeless

    splitter.feed(b"garbage\n" * GARBAGE_LIMIT)

    assert splitter.is_hopeless


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_whatever_comes_is_a_message_or_an_error_of_ours(pieces):
    splitter = Splitter(line_limit=1000)

    for piece in pieces:
        for item in splitter.feed(piece + b"\n"):
            assert isinstance(item, SessionMessage | ServerUnfit)


async def test_the_stream_ends_with_the_server():
    items = await heard(Script(MESSAGE + b"\n" + MESSAGE, b"\n"))

    assert len(items) == 2


async def test_a_server_of_nothing_but_garbage_is_left():
    items = await heard(Script(b"garbage\n" * 1000, stays=True))

    assert len(items) == GARBAGE_LIMIT


async def test_what_is_sent_is_one_line_each_also_at_the_end():
    line = Script(stays=True)

    async with transport(opening(line)) as (_, write):
        for number in range(3):
            message = JSONRPCRequest(
                jsonrpc="2.0", id=number, method="ping", params={"words": "two\nlines"}
            )
            await write.send(SessionMessage(message))

    sent = [json.loads(each) for each in line.sent.splitlines()]
    assert [each["id"] for each in sent] == [0, 1, 2]


async def test_a_server_that_takes_nothing_ends_the_waiting_for_an_answer():
    line = Script(stays=True, deaf=True)

    with anyio.fail_after(5):
        async with transport(opening(line)) as (read, write):
            message = JSONRPCRequest(jsonrpc="2.0", id=1, method="ping")
            await write.send(SessionMessage(message))
            assert [item async for item in read] == []


def asked(number, method="ping", **params):
    return SessionMessage(
        JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=params or None)
    )


@pytest.mark.parametrize("number", [0, 1, "word"])
async def test_a_server_rests_once_it_has_answered_and_is_woken_before_it_is_told(number):
    answer = MESSAGE.replace(b'"id":1', b'"id":' + json.dumps(number).encode())
    line = Script(stays=True)

    with anyio.fail_after(10):
        async with transport(opening(line), idle_s=0.05) as (read, write):
            await write.send(asked(number))
            await anyio.sleep(0.5)
            assert line.rests == []  # it owes an answer
            line.said.append(answer + b"\n")
            line.awake.set()
            await anext(read)
            while line.rests != ["rest"]:
                await anyio.sleep(0.01)
            sent = line.sent
            await write.send(asked("again"))
            while line.sent == sent:
                await anyio.sleep(0.01)
            assert line.rests == ["rest", "wake"]


async def test_a_question_that_was_taken_back_keeps_no_server_awake():
    line = Script(stays=True)
    cancelled = JSONRPCNotification(
        jsonrpc="2.0", method="notifications/cancelled", params={"requestId": 7}
    )

    with anyio.fail_after(10):
        async with transport(opening(line), idle_s=0.05) as (_, write):
            await write.send(asked(7))
            await write.send(SessionMessage(cancelled))
            while line.rests != ["rest"]:
                await anyio.sleep(0.01)


async def test_without_idle_seconds_it_never_rests():
    line = Script(stays=True)

    async with transport(opening(line), idle_s=0):
        await anyio.sleep(0.5)

    assert line.rests == []
