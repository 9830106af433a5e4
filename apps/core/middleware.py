"""What every request goes through, and what every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from opentelemetry import trace

from apps.core import memory, tenancy, tracing

Answer = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class AsyncMiddleware:
    """What all of ours are: called with a request, from an event loop."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return await self.get_response(request)


class TraceMiddleware(AsyncMiddleware):
    """Open the server span, join the caller's trace if it sent one, and say which trace it was."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        parent = tracing.context_of({key.lower(): value for key, value in request.headers.items()})
        with tracing.TRACER.start_as_current_span(
            f"{request.method} {request.path}", context=parent, kind=trace.SpanKind.SERVER
        ) as span:
            response = await self.get_response(request)
            if match := request.resolver_match:
                span.update_name(f"{request.method} {match.route}")
            span.set_attribute("http.response.status_code", response.status_code)
            response.headers["X-Trace-Id"] = tracing.current_trace_id()
            return response


class TenancyMiddleware(AsyncMiddleware):
    """Show the request nobody's rows until its person is known (``tenancy.enter``)."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if tenancy.viewer() != tenancy.PLATFORM:
            # The ASGI application has done it already, for the answer's body as well.
            return await self.get_response(request)
        with tenancy.nobody():
            return await self.get_response(request)


class MemoryMiddleware(AsyncMiddleware):
    """Let the request remember what it has asked once. The body of a stream is made after it, and asks
    anew."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with memory.kept():
            return await self.get_response(request)
