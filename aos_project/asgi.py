"""The web process: HTTP to Django, sockets to the hub, and the feed from start-up to shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from types import FrameType
from typing import Any, Final

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aos_project.settings.dev")  # noqa: TID251  # before settings exist
django.setup(set_prefix=False)

# Everything below needs Django's apps to be loaded.
from asgiref.sync import SyncToAsync  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from channels.sessions import SessionMiddlewareStack  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.db import connections  # noqa: E402
from django.http import HttpResponseBase  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from apps.core import networks, telemetry, tenancy, transport  # noqa: E402
from apps.core.origins import SocketOrigins  # noqa: E402
from apps.core.rest.bodies import BodyLimit  # noqa: E402
from apps.events import feed  # noqa: E402
from apps.hub import consumers  # noqa: E402

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

telemetry.setup("web")


class Http(ASGIHandler):
    """Django, but an answer that stays open gives its thread and connection back before it begins.

    Django gives every request a thread of its own until its answer ends. A stream needs it only to
    find out who asks; a thousand open ones would hold a thousand threads and database connections.
    """

    async def send_response(self, response: HttpResponseBase, send: Send) -> None:
        if getattr(response, "is_async", False):
            await _give_thread_back()
        await super().send_response(response, send)


async def _give_thread_back() -> None:
    context = SyncToAsync.thread_sensitive_context.get()
    executor = SyncToAsync.context_to_thread_executor.pop(context, None)
    if executor is not None:
        await asyncio.get_running_loop().run_in_executor(executor, connections.close_all)
        executor.shutdown(wait=False)


# Django, Channels and our middleware each have types of their own for the same ASGI callable.
_EVENTS: Any = consumers.project_events
_NOWHERE: Any = consumers.nowhere
_DJANGO: Any = Http()

ROUTES: Final = URLRouter([path("ws/events", _EVENTS), re_path(r"", _NOWHERE)])
# A browser brings the session along wherever the page came from, so the page's origin must be ours.
BROWSERS: Final = SocketOrigins(SessionMiddlewareStack(ROUTES))
HTTP: Final[Any] = BodyLimit(_DJANGO)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if networks.shuts_out(scope):
        await networks.refuse(scope, receive, send)
        return
    if transport.is_in_clear(scope):
        await transport.refuse(scope, receive, send)
        return
    # Around the whole exchange, so that a body that is made while it is sent is covered too.
    with tenancy.nobody():
        if scope["type"] == "http":
            await HTTP(scope, receive, send)
        elif consumers.bearer(scope) is not None:
            await ROUTES(scope, receive, send)
        else:
            await BROWSERS(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    """The server's lifespan: once up, once down."""
    await receive()
    feed.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        _end_streams_on(number)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await feed.stop()
    await send({"type": "lifespan.shutdown.complete"})


def _end_streams_on(number: signal.Signals) -> None:
    """Uvicorn says that it stops after the last answer has ended. A stream has to be told before."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    listening = feed.current()
    earlier = signal.getsignal(number)

    def end(received: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(listening.close)
        if callable(earlier):
            earlier(received, frame)

    signal.signal(number, end)
