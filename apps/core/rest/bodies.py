"""Limits on requests, kept before Django stores a single byte of them.

Django writes a whole body to a temporary file before any view, and so before any permission, is
asked. Without this, anybody could fill the disk.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from django.conf import settings

from apps.core.errors import AosError, BodyTooSlow, HeadersTooLarge, TooLarge, UriTooLong
from apps.core.rest.exceptions import problem_of

# What a multipart body adds around the file: boundaries, headers and the other fields.
_ENVELOPE: Final = 64 * 1024


# What a request may say before its body. The server itself ends a head of more than 64 KiB.
LONGEST_TARGET: Final = 8 * 1024
LARGEST_HEADERS: Final = 32 * 1024
MOST_HEADERS: Final = 100


class BodyLimit:
    """ASGI middleware: refuses what is longer than any endpoint takes, or does not come to its end."""

    def __init__(self, app: ASGI3Application) -> None:
        self.app = app

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            _check_head(scope)
            await self.app(scope, _Body(receive).receive, send)
        except (TooLarge, UriTooLong, HeadersTooLarge, BodyTooSlow) as error:
            # Thrown through Django's body reader, before it answers; views' own never come so far.
            await _refuse(send, error)


def _check_head(scope: Any) -> None:
    target = scope.get("raw_path") or scope.get("path", "").encode()
    if len(target) + len(scope.get("query_string", b"")) > LONGEST_TARGET:
        raise UriTooLong(limit=LONGEST_TARGET)
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MOST_HEADERS or size > LARGEST_HEADERS:
        raise HeadersTooLarge(count=MOST_HEADERS, limit=LARGEST_HEADERS)
    declared = dict(headers).get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > _limit():
        raise _too_large()


class _Body:
    """Counts what arrives, and looks at the clock until all of it is there."""

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive
        self._seen = 0
        self._is_whole = False
        self._due = asyncio.get_running_loop().time() + settings.AOS_BODY_SECONDS

    async def receive(self) -> Any:
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._due):
                message = await self._receive()
        except TimeoutError as error:
            raise BodyTooSlow(seconds=settings.AOS_BODY_SECONDS) from error
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > _limit():
                raise _too_large()
        self._is_whole = not message.get("more_body", False)
        return message


def _limit() -> int:
    return int(settings.AOS_FILE_LIMIT_BYTES) + _ENVELOPE


def _too_large() -> TooLarge:
    limit = settings.AOS_FILE_LIMIT_BYTES
    return TooLarge(what="The request body", size=f"over {limit}", limit=limit)


async def _refuse(send: ASGISendCallable, error: AosError) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [
                (b"content-type", b"application/problem+json"),
                (b"connection", b"close"),
            ],
            "trailers": False,
        }
    )
    body = json.dumps(problem_of(error)).encode()
    await send({"type": "http.response.body", "body": body, "more_body": False})
