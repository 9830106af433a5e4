"""How the OpenAPI document describes errors. The answers themselves come from ``exceptions``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework import serializers

from apps.core.rest.exceptions import problem

MEDIA_TYPE = "application/problem+json"


class ProblemSerializer(serializers.Serializer[Any]):
    """An error (RFC 9457). Programs read ``code``; people read ``detail``."""

    type = serializers.CharField(help_text="Always about:blank: the code says which error it is.")
    code = serializers.CharField(help_text="Stable; listed in docs/reference/errors.md.")
    title = serializers.CharField()
    detail = serializers.CharField()
    status = serializers.IntegerField()
    params = serializers.DictField(
        help_text="What the sentence was made of; `errors` names each field and the rule it breaks."
    )


_EXAMPLES: dict[int, dict[str, Any]] = {
    400: {"code": "bad_request", "detail": "The body is not valid JSON: line 1 column 2."},
    401: {"code": "not_authenticated", "detail": "Authentication credentials were not provided."},
    403: {
        "code": "not_allowed",
        "detail": "Your role does not allow run.submit. Ask an owner or admin of the organization.",
        "params": {"action": "run.submit"},
    },
    404: {
        "code": "not_found",
        "detail": "There is no run '0193' that you can see.",
        "params": {"what": "run", "ref": "0193"},
    },
    406: {"code": "not_acceptable", "detail": "Could not satisfy the request Accept header."},
    409: {"code": "run_is_over", "detail": "This run has already succeeded."},
    410: {
        "code": "content_gone",
        "detail": "The content 9f86d081 is no longer stored: it was removed after its time.",
        "params": {"sha256": "9f86d081"},
    },
    413: {
        "code": "too_large",
        "detail": "The file is 20971520 bytes; the limit is 10485760.",
        "params": {"what": "The file", "size": 20971520, "limit": 10485760},
    },
    415: {"code": "unsupported_media_type", "detail": 'Unsupported media type "text/plain".'},
    422: {
        "code": "invalid",
        "detail": "priority: must be urgent, normal or bulk",
        "params": {"errors": [{"field": "priority", "rule": "must be urgent, normal or bulk"}]},
    },
    429: {
        "code": "too_many_requests",
        "detail": "The limit 'read' is 1200 requests in 60 seconds, and they are used up. "
        "Wait 3 seconds, then go on more slowly.",
        "params": {"limit": "read", "count": 1200, "seconds": 60, "retry_after": 3},
    },
    503: {
        "code": "store_unavailable",
        "detail": "The store of files s3://files/aos cannot be used: it does not answer. "
        "Try again later.",
        "params": {"store": "s3://files/aos", "reason": "it does not answer"},
    },
}


def problems(*statuses: int) -> dict[tuple[int, str], OpenApiResponse]:
    """The error answers of an operation; each asks for a sign-in, leave and patience."""
    always = {401, 403, 429}
    return {(status, MEDIA_TYPE): _response(status) for status in sorted(always | {*statuses})}


def _response(status: int) -> OpenApiResponse:
    phrase = HTTPStatus(status).phrase
    value = problem(**{"title": phrase, "status": status, **_EXAMPLES[status]})
    return OpenApiResponse(
        ProblemSerializer,
        description=phrase,
        examples=[OpenApiExample(phrase, value=value, response_only=True)],
    )
