"""The API token of a request, verified once however often it is asked for."""

from __future__ import annotations

from django.http import HttpRequest

from apps.core import client
from apps.identity.errors import TokenInvalid
from apps.identity.models import ApiToken
from apps.identity.services import tokens


def token_of(request: HttpRequest) -> ApiToken | None:
    """The usable token that was sent, ``None`` without one; raises ``TokenInvalid`` for a bad one."""
    kept: dict[str, ApiToken | TokenInvalid | None] = request.__dict__.setdefault("_aos_bearer", {})
    if "token" not in kept:
        kept["token"] = _verified(request)
    found = kept["token"]
    if isinstance(found, TokenInvalid):
        raise found
    return found


def _verified(request: HttpRequest) -> ApiToken | TokenInvalid | None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        return tokens.verify(value.strip(), address=client.address(request))
    except TokenInvalid as error:
        return error
