"""Numbers for Prometheus: what this process has answered, and what the apps can count.

Labels are few and closed: a route's pattern, never its path; no ids, names or queues of people.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final

from django.http import HttpRequest, HttpResponseBase
from prometheus_client import CollectorRegistry, Counter, Histogram

from apps.core.middleware import AsyncMiddleware

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REGISTRY: Final = CollectorRegistry()
REQUESTS: Final = Counter(
    "aos_http_requests",
    "Requests answered by this web process since it started.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
SECONDS: Final = Histogram(
    "aos_http_request_seconds",
    "Time until the answer began; a stream's own length is not counted.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    registry=REGISTRY,
)
LIMITED: Final = Counter(
    "aos_http_limited",
    "Requests refused because there were too many, by the limit that refused.",
    ["limit"],
    registry=REGISTRY,
)


class MetricsMiddleware(AsyncMiddleware):
    """Counts every answer. Stands inside ``TraceMiddleware``, outside all others."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began = perf_counter()
        response = await self.get_response(request)
        SECONDS.observe(perf_counter() - began)
        REQUESTS.labels(*_labels(request, response)).inc()
        return response


def _labels(request: HttpRequest, response: HttpResponseBase) -> tuple[str, str, str]:
    method = request.method if request.method in _METHODS else "other"
    match = request.resolver_match
    # Whatever a stranger types must not become a label of its own.
    route = f"/{match.route}" if match else "none"
    return method or "other", route, str(response.status_code)
