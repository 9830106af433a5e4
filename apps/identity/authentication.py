"""How a request says who it is: a bearer token, or the session cookie of the pages.

Imports no view of DRF: DRF's views import this module while they are being imported themselves.
"""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

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
