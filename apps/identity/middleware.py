"""What every request leaves behind, and whether it keeps a browser signed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponseBase

from apps.identity import denials, lifetime

Answer = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class DenialMiddleware:
    """Put on record what was refused to the request."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with denials.collected() as found:
            response = await self.get_response(request)
        if found:
            await sync_to_async(denials.write)(found)
        return response


class ActivityMiddleware:
    """Keeps the session of a person who does something."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return await self.get_response(request)

    def process_view(self, request: HttpRequest, _view: Any, _args: Any, _kwargs: Any) -> None:
        if request.session.session_key and lifetime.is_act(request):
            lifetime.note_act(request.session)
