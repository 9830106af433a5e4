"""What is answered outside any view: programs get problem+json, people get a page."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views import defaults

from apps.core.errors import AosError
from apps.core.rest.exceptions import problem, problem_of
from apps.core.rest.problems import MEDIA_TYPE


def is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if not is_api(request):
        return _page(defaults.bad_request, request, exception)
    return _answer(HTTPStatus.BAD_REQUEST, "bad_request", "The request could not be understood.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if not is_api(request):
        return _page(defaults.permission_denied, request, exception)
    return _answer(HTTPStatus.FORBIDDEN, "not_allowed", "You may not do this.")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if not is_api(request):
        return _page(defaults.page_not_found, request, exception)
    return _answer(
        HTTPStatus.NOT_FOUND,
        "not_found",
        f"There is nothing at {request.path}. The API is described at /api/docs.",
    )


def too_many_requests(request: HttpRequest, error: AosError) -> HttpResponse:
    wait = str(error.params["retry_after"])
    answer: HttpResponse
    if is_api(request):
        answer = JsonResponse(problem_of(error), status=error.status, content_type=MEDIA_TYPE)
    else:
        answer = render(request, "429.html", {"wait": wait}, status=error.status)
    answer.headers["Retry-After"] = wait
    return answer


def server_error(request: HttpRequest) -> HttpResponse:
    if not is_api(request):
        return _page(defaults.server_error, request)
    return _answer(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "error",
        "Something went wrong on our side. The X-Trace-Id of this answer finds it in the logs.",
    )


def _page(view: Callable[..., HttpResponse], request: HttpRequest, *args: Any) -> HttpResponse:
    """Django makes these pages in a thread of their own when it serves asynchronously. What the page
    reads there opens a connection that nobody would close or mend."""
    try:
        return view(request, *args)
    finally:
        if isinstance(request, ASGIRequest):
            connections.close_all()


def _answer(status: HTTPStatus, code: str, detail: str) -> JsonResponse:
    body = problem(code=code, title=status.phrase, detail=detail, status=status)
    return JsonResponse(body, status=status, content_type=MEDIA_TYPE)
