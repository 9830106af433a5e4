"""What pages do when a service wants a fresh proof first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode, urlsplit

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from apps.hub.visiting import leading_to
from apps.identity.errors import StepUpRequired

Answer = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class StepUpMiddleware:
    """Lead a page whose act needs a fresh proof to where it is given, and back to the page."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return await self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """API views answer for themselves, so what comes here is a page's."""
        if not isinstance(exception, StepUpRequired):
            return None
        if getattr(request, "htmx", None):
            return leading_to(request, "verify")  # type: ignore[arg-type]
        return redirect(f"{reverse('verify')}?{urlencode({'next': _page(request)})}")


def _page(request: HttpRequest) -> str:
    """Where to come back to: the page itself, or the one whose form was sent."""
    if request.method in {"GET", "HEAD"}:
        return request.get_full_path()
    return urlsplit(request.headers.get("Referer", "/")).path or "/"
