"""One shape for every error the API returns: RFC 9457 ``application/problem+json``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import DataError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from apps.core.errors import AosError, Invalid

_CODES: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.UNAUTHORIZED: "not_authenticated",
    HTTPStatus.FORBIDDEN: "not_allowed",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.NOT_ACCEPTABLE: "not_acceptable",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
    HTTPStatus.TOO_MANY_REQUESTS: "too_many_requests",
}


def problem(
    *, code: str, title: str, detail: str, status: int, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "code": code,
        "title": title,
        "detail": detail,
        "status": int(status),
        "params": params or {},
    }


def problem_of(error: AosError) -> dict[str, Any]:
    return problem(
        code=error.code,
        title=error.title,
        detail=str(error),
        status=error.status,
        params=error.params,
    )


def handle(error: Exception, _context: dict[str, Any]) -> Response | None:
    """DRF's exception hook. What is not answered here is a bug and stays a 500."""
    if isinstance(error, exceptions.ValidationError):
        error = Invalid(field_errors(error.detail))
    if isinstance(error, DataError):
        # The last net for text PostgreSQL cannot hold; parsers refuse NUL before it comes here.
        error = Invalid([{"field": "body", "rule": "contains a value that cannot be stored"}])
    if isinstance(error, AosError):
        response = _answer(problem_of(error))
        if wait := error.params.get("retry_after"):
            response["Retry-After"] = str(wait)
        return response
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    if isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, exceptions.APIException):
        status = HTTPStatus(error.status_code)
        response = _answer(
            problem(
                code=_CODES.get(status, error.default_code),
                title=status.phrase,
                detail=str(error.detail),
                status=status,
            )
        )
        if challenge := getattr(error, "auth_header", None):
            response["WWW-Authenticate"] = challenge
        return response
    return None


def _answer(body: dict[str, Any]) -> Response:
    set_rollback()
    return Response(body, status=body["status"], content_type="application/problem+json")


def field_errors(detail: Any, field: str = "") -> list[dict[str, str]]:
    """Flatten DRF's nested messages to ``[{"field": "retry.base_s", "rule": "..."}]``."""
    if isinstance(detail, dict):
        return [
            error
            for key, value in detail.items()
            for error in field_errors(value, _join(field, str(key)))
        ]
    if isinstance(detail, list):
        found: list[dict[str, str]] = []
        for index, value in enumerate(detail):
            nested = isinstance(value, dict | list)
            found += field_errors(value, _join(field, str(index)) if nested else field)
        return found
    return [{"field": field or "body", "rule": str(detail)}]


def _join(parent: str, key: str) -> str:
    if key == "non_field_errors":
        return parent
    return f"{parent}.{key}" if parent else key
