"""Where a request comes from."""

from __future__ import annotations

from django.http import HttpRequest


def address(request: HttpRequest) -> str | None:
    """The client's address. The server has put it there, and believes only the proxies it was told
    of (``FORWARDED_ALLOW_IPS``): no header is read here."""
    return request.META.get("REMOTE_ADDR") or None
