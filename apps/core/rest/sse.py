"""Server-sent events: an answer that stays open, says what is new, and ends when it no longer may.

A stream holds neither a thread nor a database connection while it waits: what it needs of the
database it asks through the two objects it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from django.http import StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.exceptions import ParseError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

MEDIA_TYPE: Final = "text/event-stream"
LAST_EVENT_ID: Final = OpenApiParameter(
    "Last-Event-ID",
    {"type": "string", "pattern": "^[0-9]{0,18}$"},
    OpenApiParameter.HEADER,
    description="Sent by a reconnecting client; wins over `after`.",
)
RETRY_MS: Final = 2_000
# Proxies close connections that are silent.
KEEP_ALIVE_S = 15.0
# Withdrawn access ends a stream within five seconds, the asking included.
RECHECK_S = 4.0


class Message(Protocol):
    @property
    def seq(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def text(self) -> str: ...


class Messages(Protocol):
    """What ``apps.events.feed`` opens: messages as they come, and whether there can be more."""

    over: bool

    async def read(self, *, timeout_s: float) -> Sequence[Message]: ...


class EventStreamRenderer(JSONRenderer):
    """Lets DRF negotiate the media type. It renders only problems: streams pass it by."""

    media_type = MEDIA_TYPE
    format = "sse"


def described(what: str) -> OpenApiResponse:
    """A stream in the OpenAPI document: the schema is that of one message."""
    text = {"type": "string"}
    schema = {
        "type": "object",
        "properties": {
            "id": text,
            "event": text,
            "data": {**text, "contentMediaType": "application/json"},
            "retry": {"type": "integer"},
        },
    }
    return OpenApiResponse(schema, description=what)


def response(
    opening: AbstractAsyncContextManager[Messages], *, allowed: Callable[[], Awaitable[bool]]
) -> StreamingHttpResponse:
    """Answer with what ``opening`` opens; ask ``allowed`` every few seconds whether to go on."""
    answer = StreamingHttpResponse(_body(opening, allowed), content_type=MEDIA_TYPE)
    answer.headers["Cache-Control"] = "no-store"
    # nginx would collect the stream and pass it on in pieces of 4 KiB.
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


def wants_stream(request: Request) -> bool:
    """Whether DRF's negotiation chose the stream for this request."""
    renderer: Any = request.accepted_renderer
    return bool(renderer.media_type == MEDIA_TYPE)


def resume_from(request: Request, *, after: int) -> int:
    """Where to go on: a reconnecting client's ``Last-Event-ID`` says it better than its first URL."""
    raw = request.headers.get("Last-Event-ID", "")
    if not raw:
        return after
    if not raw.isascii() or not raw.isdigit() or len(raw) > 18:
        raise ParseError("Last-Event-ID must be the id of an event of this stream.")
    return int(raw)


async def _body(
    opening: AbstractAsyncContextManager[Messages], allowed: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    # Said at once, so that the client knows it is connected before anything happens.
    yield f"retry: {RETRY_MS}\n\n"
    async with opening as messages:
        async for piece in _pieces(messages, allowed):
            yield piece


async def _pieces(messages: Messages, allowed: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
    now = asyncio.get_running_loop().time
    asked_at = spoke_at = now()
    while not messages.over:
        found = await messages.read(timeout_s=max(0.0, asked_at + RECHECK_S - now()))
        if now() - asked_at >= RECHECK_S:
            # Asked before anything is passed on: a client that stalled gets nothing stale.
            if not await allowed():
                return
            asked_at = now()
        if found:
            yield "".join(map(_encoded, found))
            spoke_at = now()
        elif now() - spoke_at >= KEEP_ALIVE_S:
            yield ": keep-alive\n\n"
            spoke_at = now()


def _encoded(message: Message) -> str:
    return f"id: {message.seq}\nevent: {message.type}\ndata: {message.text}\n\n"
