"""What is answered before anything of a request is read."""

from __future__ import annotations

import json
from typing import Any

from apps.core.errors import AosError
from apps.core.rest.exceptions import problem_of
from apps.core.rest.problems import MEDIA_TYPE


async def refuse(error: AosError, scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the error; a socket's handshake fails with 403."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
        return
    body = problem_of(error)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": body["status"], "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
