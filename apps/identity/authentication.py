"""How a request says who it is: a password, then the session cookie of the pages, or a bearer token.

Who asks is looked up among all organizations; from then on the request sees its own only.

Imports no view of DRF: DRF's views import this module while they are being imported themselves.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from apps.core import clock, tenancy
from apps.identity import bearer, denials
from apps.identity.actor import Actor
from apps.identity.models import ApiToken, Binding, User
from apps.identity.types import Role, Scope

_CHALLENGE = 'Bearer realm="aos"'


class PasswordBackend(ModelBackend):
    """Django's own, looking for the person among all organizations and then staying in theirs."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        with tenancy.platform():
            user = super().authenticate(request, username, password, **kwargs)
            if user is None:
                _note_refused(username)
            elif not _may_use_password(user):
                denials.note(
                    Actor(user=user).ref, "session.begin", reason="passwords are not taken"
                )
                user = None
            elif _is_too_late(user):
                denials.note(
                    Actor(user=user).ref, "session.begin", reason="the first password has expired"
                )
                user = None
        return _entered(user)

    def get_user(self, user_id: Any) -> User | None:
        with tenancy.platform():
            user = super().get_user(user_id)
        return _entered(user)

    def user_can_authenticate(self, user: Any) -> bool:
        """Asked at sign-in and again for each request of a session."""
        may: bool = super().user_can_authenticate(user)
        return may and not user.is_service_account

    async def aauthenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        return await sync_to_async(self.authenticate)(request, username, password, **kwargs)

    async def aget_user(self, user_id: Any) -> User | None:
        return await sync_to_async(self.get_user)(user_id)


def _may_use_password(user: Any) -> bool:
    """Where people sign in at a provider, owners keep their password for the day it is away."""
    if settings.AOS_PASSWORD_SIGN_IN:
        return True
    return Binding.objects.of(user).filter(scope=Scope.ORGANIZATION, role=Role.OWNER).exists()


def _is_too_late(user: Any) -> bool:
    """Whether a password that somebody else set was not exchanged in time."""
    until = user.first_password_until
    return until is not None and until <= clock.now()


def _note_refused(username: str | None) -> None:
    """On record with the organization of the account that was tried, if there is one."""
    tried = User.objects.filter(username=username).first()
    if tried is not None:
        reason = "wrong password" if tried.is_active else "the account is disabled"
        denials.note(Actor(user=tried).ref, "session.begin", reason=reason)


def _entered(user: Any) -> User | None:
    if not isinstance(user, User):
        return None
    tenancy.enter(user.organization_id)
    return user


class TokenAuthentication(BaseAuthentication):
    """``Authorization: Bearer aos_pat_...``"""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        token = bearer.token_of(request._request)  # noqa: SLF001  # DRF's own name for the request
        return (token.user, token) if token else None

    def authenticate_header(self, request: Request) -> str:
        return _CHALLENGE


class CookieAuthentication(SessionAuthentication):
    """The session of the pages, with its CSRF check; a missing one is a 401, not a 403."""

    def authenticate_header(self, request: Request) -> str:
        return _CHALLENGE
