"""HTTP helpers that other apps' APIs build on: who asks, and may they."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.core.errors import NotAllowed
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import ApiToken, User
from apps.identity.services import tokens

_CHALLENGE = 'Bearer realm="aos"'


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Bearer aos_pat_...``"""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = tokens.verify(value.strip())
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return _CHALLENGE


class CookieAuthentication(SessionAuthentication):
    """The session of the pages, with its CSRF check; a missing one is a 401, not a 403."""

    def authenticate_header(self, request: Request) -> str:
        return _CHALLENGE


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "aos_pat_..."}


class CookieScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = CookieAuthentication
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


class MatrixPermission(BasePermission):
    """Deny by default: a view names its action per method in ``actions = {"get": "run.read"}``.

    This asks whether the person holds the role anywhere and the token has the scope; which rows
    they reach is decided by ``visible_to`` and, for writes, again by the service.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.user, User):
            return False
        actions: dict[str, str] = getattr(view, "actions", {})
        action = actions.get((request.method or "").lower())
        if action is None:
            return False
        by = actor(request)
        policy.require_scope(by, action)
        if not policy.may_enter(by, action):
            raise NotAllowed(action=action)
        return True


def actor(request: Request) -> Actor:
    """Who acts behind an API request."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    token = request.auth if isinstance(request.auth, ApiToken) else None
    return Actor(user=request.user, token=token)


def page_actor(request: HttpRequest) -> Actor:
    """Who acts behind a page; the page has already required a sign-in."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return Actor(user=request.user)
