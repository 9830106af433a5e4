"""Which limit a request falls under, and whose buckets it takes from.

Whoever says who they are takes from their own bucket, in browsers and programs apart: a program that
runs wild does not lock its owner out of the pages. All others, a wrong token among them, share the
bucket of their address. Signing in goes by address alone; wrong passwords are counted once more, by
account, in the database (django-axes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from apps.core import client, limits
from apps.core.errors import TooManyRequests
from apps.core.limits import Bucket, Taken
from apps.core.metrics import LIMITED
from apps.core.middleware import AsyncMiddleware
from apps.core.rest import faults, sse
from apps.identity import bearer
from apps.identity.errors import TokenInvalid
from apps.identity.models import User

ANONYMOUS: Final = "anonymous"
SIGN_IN: Final = "sign-in"
STREAM: Final = "stream"
_ORGANIZATION: Final = "organization"
# What is neither plain reading nor plain writing, by route. tests/db/hub/test_limiting.py sees
# that each route exists.
SPECIAL: Final[Mapping[tuple[str, str], str]] = {
    ("POST", "login"): SIGN_IN,
    ("POST", "login/code"): SIGN_IN,
    ("POST", "login/password"): SIGN_IN,
    ("POST", "login/factor"): SIGN_IN,
    ("POST", "account/verify"): SIGN_IN,
    ("POST", "account/password"): SIGN_IN,
    ("POST", "api/run"): "submit",
    ("POST", "api/runs"): "submit",
    ("POST", "api/runs/<str:run_id>/rerun"): "submit",
    ("POST", "runs/<uuid:public_id>/rerun"): "submit",
    ("POST", "projects/<uuid:project_id>/submit"): "submit",
    ("POST", "api/schedules/<str:schedule_id>/run"): "submit",
    ("POST", "schedules/<uuid:schedule_id>/run"): "submit",
    ("GET", "api/audit/export"): "export",
    ("GET", "api/audit/verify"): "export",
    ("GET", "audit/export"): "export",
    ("GET", "audit/verify"): "export",
    ("GET", "api/events/stream"): STREAM,
}
# Says only that the process lives, and asks nobody.
FREE: Final = frozenset({"healthz"})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class LimitMiddleware(AsyncMiddleware):
    """Refuse what comes too often, and tell the others how much is left."""

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = await self.get_response(request)
        taken: Taken | None = request.__dict__.get("_aos_taken")
        if taken is not None:
            for name, told in taken.headers().items():
                response.headers[name] = told
        return response

    def process_view(
        self, request: HttpRequest, view: Any, _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        """Where the route is known, and the view has not begun."""
        if request.resolver_match is None or request.resolver_match.route in FREE:
            return None
        try:
            request.__dict__["_aos_taken"] = limits.take(*_buckets(request, view))
        except TooManyRequests as error:
            LIMITED.labels(str(error.params["limit"])).inc()
            return faults.too_many_requests(request, error)
        return None


def _buckets(request: HttpRequest, view: Any) -> list[Bucket | None]:
    kind = kind_of(request)
    user, program = _who(request, is_api=hasattr(view, "cls"))
    if user is None or kind == SIGN_IN:
        address = limits.block(client.address(request))
        return [limits.bucket(SIGN_IN if kind == SIGN_IN else ANONYMOUS, address)]
    return of_person(user, kind, program=program)


def of_person(user: User, kind: str, *, program: bool) -> list[Bucket | None]:
    """The buckets of a known person's request: their own, and their organization's."""
    organization = str(user.organization_id)
    own = limits.bucket(kind, f"{user.pk}:{'program' if program else 'browser'}")
    shared = [limits.bucket(_ORGANIZATION, organization)]
    if kind == "submit":
        shared.append(limits.bucket("submit-organization", organization))
    return [own, *shared]


def kind_of(request: HttpRequest) -> str:
    match = request.resolver_match
    method = request.method or ""
    if match and (special := SPECIAL.get((method, match.route))):
        return special
    if method == "GET" and sse.MEDIA_TYPE in request.headers.get("Accept", ""):
        return STREAM
    return "read" if method in _READING else "write"


def _who(request: HttpRequest, *, is_api: bool) -> tuple[User | None, bool]:
    """The person behind the request and whether a program asks for them. Pages take no tokens."""
    if is_api:
        try:
            token = bearer.token_of(request)
        except TokenInvalid:
            return None, True
        if token is not None:
            return token.user, True
    user = getattr(request, "user", None)
    return (user if isinstance(user, User) else None), False
