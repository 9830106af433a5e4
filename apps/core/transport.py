"""Programs that ask over plain HTTP are refused where people are led to HTTPS.

A program that follows the redirect works, and sends its token in clear each time: nobody would notice.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

from apps.core import threshold
from apps.core.errors import PlainHttp
from apps.core.metrics import LIMITED


def is_in_clear(scope: dict[str, Any]) -> bool:
    """Whether a program asks over plain HTTP, by the API or a socket, where HTTPS is asked for."""
    if not settings.SECURE_SSL_REDIRECT or _is_secure(scope):
        return False
    path: str = scope["path"]
    return scope["type"] == "websocket" or path == "/api" or path.startswith("/api/")


def _is_secure(scope: dict[str, Any]) -> bool:
    """As Django decides it: by what the proxy says where one is believed, else by the connection."""
    if settings.SECURE_PROXY_SSL_HEADER is None:
        return scope.get("scheme") in {"https", "wss"}
    name, wanted = settings.SECURE_PROXY_SSL_HEADER
    said = [
        value.decode("latin-1").split(",")[0].strip()
        for key, value in scope["headers"]
        if f"HTTP_{key.decode('latin-1').upper().replace('-', '_')}" == name
    ]
    return said == [wanted] if said else scope.get("scheme") in {"https", "wss"}


async def refuse(scope: dict[str, Any], receive: Any, send: Any) -> None:
    LIMITED.labels("plain-http").inc()
    await threshold.refuse(PlainHttp(), scope, receive, send)
