"""Where a request comes from."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


def address(request: HttpRequest) -> str | None:
    """The client's address. The server has put it there, and believes only the proxies it was told
    of (``FORWARDED_ALLOW_IPS``): no header is read here."""
    return request.META.get("REMOTE_ADDR") or None


def address_of(scope: dict[str, Any]) -> str | None:
    """The same for a socket: the server has put it into the connection's scope."""
    client = scope.get("client")
    return str(client[0]) if client else None
