"""How tests knock at the faces: with a session, with a token, or with nothing."""

from __future__ import annotations

from typing import Any

from django.test import Client
from rest_framework.test import APIClient

from apps.identity import proof
from apps.identity.models import User
from tests.factories import make_token


def api(user: User | None = None, *scopes: str) -> APIClient:
    """A client that carries a token of the person; nobody's without one."""
    client = APIClient()
    if user is not None:
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_token(user, *scopes)}")
    return client


def session(user: User | None = None) -> Client:
    """A browser that has signed in, and checks CSRF tokens like a real one does not need to."""
    client = Client()
    if user is not None:
        client.force_login(user)
        signed_in = client.session
        proof.note(signed_in)
        signed_in.save()
    return client


def key(name: str = "intention") -> dict[str, str]:
    """The header of a request that must take effect once."""
    return {"Idempotency-Key": f"{name}-{'0' * 16}"}


def problem(response: Any) -> dict[str, Any]:
    """The body of an error answer, after checking that it is one."""
    assert response["Content-Type"] == "application/problem+json", response.content
    body: dict[str, Any] = response.json()
    assert set(body) == {"type", "code", "title", "detail", "status", "params"}
    assert body["status"] == response.status_code
    return body
