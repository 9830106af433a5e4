"""What every request leaves behind, and whether it keeps a browser signed in."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase

from apps.core.middleware import AsyncMiddleware
from apps.identity import denials, lifetime


class DenialMiddleware(AsyncMiddleware):
    """Put on record what was refused to the request."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with denials.collected() as found:
            response = await self.get_response(request)
        if found:
            await sync_to_async(denials.write)(found)
        return response


class ActivityMiddleware(AsyncMiddleware):
    """Keeps the session of a person who does something."""

    def process_view(self, request: HttpRequest, _view: Any, _args: Any, _kwargs: Any) -> None:
        if request.session.session_key and lifetime.is_act(request):
            lifetime.note_act(request.session)
