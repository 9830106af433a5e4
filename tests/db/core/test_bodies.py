"""The limit that stands before Django: told by length, and counted where no length is told."""

from __future__ import annotations

import json

import pytest
from django.conf import settings

from apps.core.rest.bodies import BodyLimit

LIMIT = settings.AOS_FILE_LIMIT_BYTES


async def drink_it_all(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


async def post(chunks, headers=()):
    sent, waiting = [], list(chunks)

    async def receive():
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": list(headers)}
    await BodyLimit(drink_it_all)(scope, receive, send)
    return sent[0]["status"], sent[1]["body"], len(waiting)


async def test_a_body_within_the_limit_passes_untouched():
    assert await post([b"abc", b"def"]) == (200, b"6", 0)


async def test_a_declared_length_over_the_limit_is_refused_unread():
    length = str(LIMIT + 10**6).encode()

    status, body, unread = await post([b"x"], [(b"content-length", length)])

    assert (status, unread) == (413, 1)
    assert json.loads(body)["code"] == "too_large"


async def test_an_undeclared_body_is_cut_off_when_it_grows_too_long():
    chunk = b"x" * (1024 * 1024)

    status, _, unread = await post([chunk] * 100)

    assert status == 413
    assert unread > 80


@pytest.mark.parametrize("length", [b"-1", b"many", b""])
async def test_a_senseless_length_is_not_believed(length):
    status, _, _ = await post([b"abc"], [(b"content-length", length)])

    assert status == 200


async def test_sockets_are_none_of_its_business():
    passed = []

    async def app(scope, receive, send):
        passed.append(scope["type"])

    await BodyLimit(app)({"type": "websocket", "headers": []}, None, None)

    assert passed == ["websocket"]
