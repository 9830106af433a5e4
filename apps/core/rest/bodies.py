"""A limit on request bodies, kept before Django stores a single byte of them.

Django writes a whole body to a temporary file before any view, and so before any permission, is
asked. Without this, anybody could fill the disk.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from django.conf import settings

from apps.core.rest.exceptions import problem

# What a multipart body adds around the file: boundaries, headers and the other fields.
_ENVELOPE: Final = 64 * 1024


class _Overrun(Exception):
    """Thrown through Django's body reader, and only seen below."""


class BodyLimit:
    """ASGI middleware: answers 413 to a body longer than any endpoint takes."""

    def __init__(self, app: ASGI3Application) -> None:
        self.app = app

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = settings.AOS_FILE_LIMIT_BYTES + _ENVELOPE
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await _refuse(send)
            return
        seen = 0

        async def counted() -> Any:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise _Overrun
            return message

        try:
            await self.app(scope, counted, send)
        except _Overrun:
            await _refuse(send)


async def _refuse(send: ASGISendCallable) -> None:
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    limit = settings.AOS_FILE_LIMIT_BYTES
    body = problem(
        code="too_large",
        title="Too large",
        detail=f"The request body is larger than anything taken here; the limit is {limit} bytes.",
        status=status,
        params={"limit": limit},
    )
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/problem+json"),
                (b"connection", b"close"),
            ],
            "trailers": False,
        }
    )
    await send(
        {"type": "http.response.body", "body": json.dumps(body).encode(), "more_body": False}
    )
