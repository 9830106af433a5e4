"""Flower behind our sign-in: a window on the workers, and nothing but a window.

Only reading passes. Flower's own buttons (shut a worker down, revoke a task) would act past our
permissions, audit and the engine, so their requests are refused here; runs are cancelled in AOS.
Neither our cookies reach Flower nor its cookies the browser.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import httpx
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
)
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt

from apps.identity import denials, policy
from apps.identity.actor import Actor
from apps.identity.models import User

# Flower's workers page sets one variable in an inline script; this is the hash of that script.
# tests/db/hub/test_flower.py compares it with the installed Flower.
AUTOREFRESH_SCRIPT: Final = "sha256-A0YIP5A+DKoseGAUTHRoMPDkKPK5cKzfYH3mjcCKtj8="
POLICY: Final = (
    f"default-src 'none'; script-src 'self' '{AUTOREFRESH_SCRIPT}'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# The tasks table is read by POST, because its query is long. It is passed on as the GET it is.
_READ_BY_POST: Final = "tasks/datatable"
_ASKED: Final = ("Accept", "Accept-Language", "If-None-Match", "If-Modified-Since")
_ANSWERED: Final = ("Content-Type", "Cache-Control", "ETag", "Last-Modified", "Location")
_PATIENCE: Final = httpx.Timeout(20.0, connect=2.0)


# Reading changes nothing, so the one POST needs no CSRF token (Flower's page could not send ours).
@csrf_exempt
async def flower(request: HttpRequest, path: str = "") -> HttpResponseBase:
    user = await request.auser()
    if not isinstance(user, User):
        return redirect_to_login(request.get_full_path())
    by = Actor(user=user)
    if not await sync_to_async(policy.allows)(by, "queue.watch"):
        denials.note(by.ref, "queue.watch", reason="not_allowed")
        raise PermissionDenied
    query = _query(request, path)
    if query is None:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if ".." in path.split("/"):
        raise Http404
    return await _pass_on(request, path, query)


def _query(request: HttpRequest, path: str) -> str | None:
    """The query to pass on, or ``None`` when the request is not one for reading."""
    if request.method in {"GET", "HEAD"}:
        return request.GET.urlencode()
    if request.method == "POST" and path == _READ_BY_POST:
        return request.POST.urlencode()
    return None


async def _pass_on(request: HttpRequest, path: str, query: str) -> HttpResponseBase:
    client = httpx.AsyncClient(timeout=_PATIENCE, verify=_tls(), trust_env=False)
    asked = {name: request.headers[name] for name in _ASKED if name in request.headers}
    outgoing = client.build_request(
        "HEAD" if request.method == "HEAD" else "GET",
        f"{settings.AOS_FLOWER_URL}/flower/{quote(path)}",
        params=query.encode(),
        headers={**asked, "Accept-Encoding": "identity"},
    )
    user, _, password = settings.AOS_FLOWER_BASIC_AUTH.partition(":")
    auth = httpx.BasicAuth(user, password) if user else None
    try:
        answer = await client.send(outgoing, auth=auth, stream=True)
    except httpx.TransportError as error:
        await client.aclose()
        return await _down(request, f"It does not answer at its address ({type(error).__name__}).")
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        await _close(answer, client)
        return await _down(request, "It does not accept our password (AOS_FLOWER_BASIC_AUTH).")
    headers = _headers(answer.headers)
    if request.method == "HEAD":
        await _close(answer, client)
        return HttpResponse(status=answer.status_code, headers=headers)
    return StreamingHttpResponse(_body(answer, client), status=answer.status_code, headers=headers)


def _headers(answered: Mapping[str, str]) -> dict[str, str]:
    kept = {name: answered[name] for name in _ANSWERED if name in answered}
    if not kept.get("Location", "/").startswith("/"):
        del kept["Location"]
    return kept | {"Content-Security-Policy": POLICY}


async def _body(answer: httpx.Response, client: httpx.AsyncClient) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_bytes():
            yield chunk
    finally:
        await _close(answer, client)


async def _close(answer: httpx.Response, client: httpx.AsyncClient) -> None:
    await answer.aclose()
    await client.aclose()


async def _down(request: HttpRequest, reason: str) -> HttpResponse:
    return await sync_to_async(render)(
        request,
        "hub/flower_down.html",
        {"reason": reason},
        status=HTTPStatus.SERVICE_UNAVAILABLE,
    )


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
