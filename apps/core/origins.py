"""Requests that a page of somebody else's made a browser send, with our cookies in them.

Browsers say which page asks: ``Origin``, and ``Sec-Fetch-*``. What says that it comes from elsewhere is
refused before anything looks at its cookies, reading as well as changing; only following a link to
us is left. Programs that bring a token of their own are nobody's browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.http.request import split_domain_port, validate_host
from django.shortcuts import render

from apps.core.errors import ForeignOrigin
from apps.core.middleware import AsyncMiddleware
from apps.core.rest import faults
from apps.core.rest.exceptions import problem_of
from apps.core.rest.problems import MEDIA_TYPE

_OURS: Final = frozenset({"same-origin", "none"})
_PORTS: Final = {"http": 80, "https": 443}


def is_ours(origin: str, *, host: str, secure: bool) -> bool:
    """Whether an ``Origin`` names a page of ours: one we trust, or of the very host that was asked.

    A page over plain HTTP is none of a host that was asked over HTTPS.
    """
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    try:
        asking, asked = urlsplit(origin), urlsplit(f"//{host}")
        theirs = _PORTS[asking.scheme] if asking.port is None else asking.port
        ours = asked.port
    except (ValueError, KeyError):
        return False
    # Written as browsers write it: nothing before the host, nothing after the port.
    if f"{asking.scheme}://{asking.netloc}" != origin or asking.username is not None:
        return False
    if asking.netloc.endswith(":") or (secure and asking.scheme != "https"):
        return False
    if ours is None:
        ours = _PORTS["https" if secure else asking.scheme]
    return (asking.hostname, theirs) == (asked.hostname, ours)


def is_known(host: str) -> bool:
    """Whether a ``Host`` header names one of ``ALLOWED_HOSTS``."""
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def comes_from_elsewhere(
    headers: Mapping[str, str], *, method: str, host: str, secure: bool
) -> bool:
    """Whether another site's page asks, by what the browser says. Header names are in small letters."""
    if headers.get("authorization"):
        return False
    origin = headers.get("origin")
    if origin is not None and not is_ours(origin, host=host, secure=secure):
        return True
    site = headers.get("sec-fetch-site")
    if site is None or site in _OURS:
        return False
    is_link = (
        method in {"GET", "HEAD"}
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    return not is_link


class OriginMiddleware(AsyncMiddleware):
    """Refuses what another site's page asks."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if comes_from_elsewhere(
            headers,
            method=request.method or "",
            host=request.get_host(),
            secure=request.is_secure(),
        ):
            return await sync_to_async(_refuse)(request)
        return await self.get_response(request)


def _refuse(request: HttpRequest) -> HttpResponse:
    """A bare page: the person behind the cookies is not looked up."""
    error = ForeignOrigin()
    if faults.is_api(request):
        return JsonResponse(problem_of(error), status=error.status, content_type=MEDIA_TYPE)
    return render(request, "403_origin.html", status=error.status)


class SocketOrigins:
    """ASGI middleware: a browser's socket opens for our own pages and our own host only."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if _is_invited(scope):
            await self.app(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close"})


def _is_invited(scope: dict[str, Any]) -> bool:
    given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    hosts, found = [value for name, value in given if name == "host"], dict(given)
    origins = [value for name, value in given if name == "origin"]
    # Two of either is a disagreement about who asks what, and nothing a browser sends.
    if len(hosts) != 1 or len(origins) != 1 or not is_known(hosts[0]):
        return False
    proxied = settings.SECURE_PROXY_SSL_HEADER and found.get("x-forwarded-proto") == "https"
    secure = scope.get("scheme") == "wss" or bool(proxied)
    return not comes_from_elsewhere(
        {"origin": origins[0], "sec-fetch-site": found.get("sec-fetch-site", "none")},
        method="GET",
        host=hosts[0],
        secure=secure,
    )
