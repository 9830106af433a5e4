"""Asking the application itself: requests that no client library would send."""

from __future__ import annotations

import asyncio
from typing import Any

from aos_project.asgi import application


async def ask(
    path: str,
    *,
    kind: str = "http",
    scheme: str = "http",
    host: str | None = "127.0.0.1",
    headers: dict[str, str],
) -> list[dict[str, Any]]:
    """What is answered to a request, or to a socket, that comes from this address."""
    first = {"type": "http.request", "body": b"", "more_body": False}
    waiting = [{"type": "websocket.connect"} if kind == "websocket" else first]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "query_string": b"",
        "scheme": scheme,
        "client": (host, 4711) if host else None,
        "subprotocols": [],
        "headers": [(b"host", b"127.0.0.1")]
        + [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await application(scope, receive, send)
    return sent
