"""HTTP helpers that other apps' APIs and pages build on: who acts behind a request."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from apps.core import tenancy
from apps.identity import proof
from apps.identity.actor import Actor
from apps.identity.models import ApiToken, User


def actor(request: Request) -> Actor:
    """Who acts behind an API request, which from here on sees their organization only."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    tenancy.enter(request.user.organization_id)
    token = request.auth if isinstance(request.auth, ApiToken) else None
    is_stale = token is None and proof.is_stale(getattr(request, "session", None))
    return Actor(user=request.user, token=token, is_stale=is_stale)


def page_actor(request: HttpRequest) -> Actor:
    """Who acts behind a page; the page has already required a sign-in."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return Actor(user=request.user, is_stale=proof.is_stale(request.session))
