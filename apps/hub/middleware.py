"""What comes before a page: the first start, and a fresh proof when a service wants one."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode, urlsplit

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from apps.core.errors import NotAllowed
from apps.core.middleware import AsyncMiddleware
from apps.core.rest.faults import permission_denied
from apps.hub.visiting import leading_to
from apps.identity.errors import StepUpRequired
from apps.identity.services import installation

# Not pages: programs ask here, and get their own answers.
_NO_PAGES: Final = ("/api/", "/healthz", "/readyz", "/metrics", "/start")


class FirstStartMiddleware(AsyncMiddleware):
    """While nobody owns the installation, lead every page to the first start."""

    # What is over is over for good, so it is asked for only until then.
    _is_over = False

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not self._is_over and _is_page(request.path):
            if await sync_to_async(installation.is_open)():
                return redirect("start")
            self._is_over = True
        return await self.get_response(request)


def _is_page(path: str) -> bool:
    return not path.startswith((*_NO_PAGES, settings.STATIC_URL))


class StepUpMiddleware(AsyncMiddleware):
    """Lead a page whose act needs a fresh proof to where it is given, and back to the page. What a
    service refuses and the page does not tell by itself is a 403."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """API views answer for themselves, so what comes here is a page's."""
        if isinstance(exception, NotAllowed):
            return permission_denied(request, exception)
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
