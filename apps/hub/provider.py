"""Signing in at an OpenID provider: out to it, back from it, and joining an account here to one there."""

from __future__ import annotations

import hmac
import logging
import re
from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum
from functools import wraps
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from apps.core import clock, tenancy
from apps.core.errors import AosError
from apps.hub import account
from apps.hub.visiting import HubRequest, View, signed_in
from apps.identity import oidc, policy, proof
from apps.identity.errors import ProviderRefused
from apps.identity.models import User
from apps.identity.rest import page_actor
from apps.identity.services import provider
from apps.projects.services import projects

logger = logging.getLogger(__name__)

# What this browser took along to the provider.
_AWAY: Final = "aos_provider"
_AWAY_LASTS: Final = timedelta(minutes=10)
# Reasons a provider may give, in the letters of the standard; anything else is not repeated.
_CODE: Final = re.compile(r"[a-z_]{1,40}")


class Purpose(StrEnum):
    """Why somebody goes to the provider."""

    SIGN_IN = "sign-in"
    # Prove again who they are.
    VERIFY = "verify"
    # Join the account they are signed in to.
    CONNECT = "connect"


def _where_there_is_one(view: View[[]]) -> View[[]]:
    """Without a provider its pages do not exist."""

    @wraps(view)
    def wrapped(request: HubRequest) -> HttpResponseBase:
        if not oidc.is_on():
            raise Http404
        try:
            return view(request)
        except AosError as error:
            if error.code == "step_up_required":
                raise
            return _refused(request, error)

    return wrapped


@never_cache
@require_GET
@_where_there_is_one
def begin(request: HubRequest) -> HttpResponse:
    """Out to the provider. What must come back stays in this browser's session."""
    try:
        purpose = Purpose(request.GET.get("to", Purpose.SIGN_IN))
    except ValueError as error:
        raise Http404 from error
    if purpose == Purpose.SIGN_IN and request.user.is_authenticated:
        return redirect(account.next_page(request))
    if purpose != Purpose.SIGN_IN and not request.user.is_authenticated:
        return redirect("login")
    if purpose == Purpose.CONNECT:
        policy.require_fresh(page_actor(request), "token.manage")
    address, begun = oidc.begin(back=_back(), fresh=purpose == Purpose.VERIFY)
    request.session[_AWAY] = asdict(begun) | {
        "purpose": purpose,
        "next": account.next_page(request),
        "at": clock.now().isoformat(),
        "user": str(request.user.pk or ""),
    }
    return redirect(address)


@never_cache
@require_GET
@_where_there_is_one
def back(request: HubRequest) -> HttpResponse:
    """Back from the provider, with a code that is worth something in this browser only, and once."""
    away = _taken_along(request)
    if "error" in request.GET or "code" not in request.GET:
        raise ProviderRefused(reason=_said(request.GET.get("error", "")))
    since = datetime.fromisoformat(away["at"])
    begun = oidc.Begun(**{name: away[name] for name in ("state", "nonce", "verifier", "fresh")})
    identity = oidc.finish(begun, code=request.GET["code"], back=_back(), since=since)
    return _DO[Purpose(away["purpose"])](request, identity, away["next"])


def _taken_along(request: HubRequest) -> dict[str, Any]:
    """What this browser left with, if it is back in time and with the same state; not there again."""
    away: dict[str, Any] | None = request.session.pop(_AWAY, None)
    again = "Sign in again from here."
    if away is None:
        raise ProviderRefused(reason=f"This browser did not ask for that, or asked before. {again}")
    state = request.GET.get("state", "")
    if not hmac.compare_digest(state.encode(), away["state"].encode()):
        raise ProviderRefused(reason=f"That answer belongs to another question. {again}")
    # RFC 9207: an answer that names its issuer must come from ours.
    if request.GET.get("iss", settings.AOS_OIDC_ISSUER) != settings.AOS_OIDC_ISSUER:
        raise ProviderRefused(reason=f"That answer comes from another provider. {again}")
    if clock.now() - datetime.fromisoformat(away["at"]) > _AWAY_LASTS:
        raise ProviderRefused(reason=f"That took too long. {again}")
    if away["user"] != str(request.user.pk or ""):
        raise ProviderRefused(reason=f"Somebody else is signed in here by now. {again}")
    return away


def _sign_in(request: HubRequest, identity: oidc.Identity, to: str) -> HttpResponse:
    with tenancy.platform():
        user = provider.enter(identity, find_project=projects.named)
    tenancy.enter(user.organization_id)
    account.let_in(request, user, how=settings.AOS_OIDC_NAME, is_fresh=False)
    request.session[account.LEFT_BY_PROVIDER] = True
    if identity.proved_at:
        proof.note(request.session, at=identity.proved_at)
    return redirect(to)


def _verify(request: HubRequest, identity: oidc.Identity, to: str) -> HttpResponse:
    with tenancy.platform():
        user = provider.known(identity)
    if user is None or user != request.user:
        raise ProviderRefused(reason="That is not who you are here.")
    proof.note(request.session, at=identity.proved_at)
    return redirect(to)


def _connect(request: HubRequest, identity: oidc.Identity, _to: str) -> HttpResponse:
    by = page_actor(request)
    # The other account there may be joined to somebody of another organization.
    with tenancy.platform():
        provider.connect(by=by, identity=identity)
    messages.success(request, f"From now on you can sign in with {settings.AOS_OIDC_NAME}.")
    return redirect("security")


_DO: Final = {
    Purpose.SIGN_IN: _sign_in,
    Purpose.VERIFY: _verify,
    Purpose.CONNECT: _connect,
}


@never_cache
@require_GET
@_where_there_is_one
def end(_request: HubRequest) -> HttpResponse:
    """To where people sign out of the provider itself."""
    return redirect(oidc.end_address() or "login")


@signed_in
@require_POST
def disconnect(request: HubRequest) -> HttpResponse:
    try:
        provider.disconnect(by=page_actor(request))
    except AosError as error:
        if error.code == "step_up_required":
            raise
        messages.error(request, str(error))
    else:
        messages.success(request, "Your account is not connected to the provider any more.")
    return redirect("security")


def _back() -> str:
    """Where the provider sends people: our public address, whatever host the request names."""
    return f"{settings.AOS_PUBLIC_URL}{reverse('provider_back')}"


def _said(code: str) -> str:
    if code == "access_denied":
        return "You, or the identity provider, said no."
    told = f" ({code})" if _CODE.fullmatch(code) else ""
    return f"The identity provider did not let you through{told}."


def _refused(request: HttpRequest, error: AosError) -> HttpResponse:
    logger.warning("sign-in at the provider refused", extra={"code": error.code})
    context = {
        "error": error,
        "signed_in": isinstance(request.user, User),
        "passwords": settings.AOS_PASSWORD_SIGN_IN,
    }
    return render(request, "hub/provider_refused.html", context, status=error.status)
