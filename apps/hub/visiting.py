"""Who opens a page: what every view of the hub begins with."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

from apps.core.errors import Invalid, NotAllowed, NotFound
from apps.identity import policy
from apps.identity.matrix import MATRIX
from apps.identity.models import User
from apps.identity.rest import page_actor

P = ParamSpec("P")


class HubRequest(HttpRequest):
    """A request as our middleware hands it on."""

    htmx: HtmxDetails


View = Callable[Concatenate[HubRequest, P], HttpResponseBase]


def signed_in(view: View[P]) -> View[P]:
    """Like ``login_required``, but a fragment must not be answered with the sign-in page in it.

    What a service refuses or does not find, and the view does not deal with, is a 403 or 404 page.
    """
    with_login = login_required(view)

    @wraps(view)
    def wrapped(request: HubRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if request.htmx and not request.user.is_authenticated:
            return leading_to(request, "login")
        try:
            answer: HttpResponseBase = with_login(request, *args, **kwargs)
        except NotAllowed as error:
            raise PermissionDenied(_told(error)) from error
        except NotFound as error:
            raise Http404(str(error)) from error
        return answer

    # Kept by every decorator around it: tests ask whether a page has it.
    wrapped.__dict__["asks_for_sign_in"] = True
    return wrapped


def _told(error: NotAllowed) -> str:
    """The refusal, and which role does what for those who do not know our names of actions."""
    rule = MATRIX.get(str(error.params.get("action")))
    if rule is None:
        return str(error)
    return f"{error} It takes the role {rule.role} to {rule.summary[0].lower()}{rule.summary[1:]}."


def may(action: str) -> Callable[[View[P]], View[P]]:
    """Let in only whose role allows the action over the organization. Goes below ``signed_in``."""

    def guard(view: View[P]) -> View[P]:
        @wraps(view)
        def wrapped(request: HubRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            policy.require(page_actor(request), action)
            return view(request, *args, **kwargs)

        # Tests ask which action a page asks for before anything else.
        wrapped.__dict__["asks_for"] = action
        return wrapped

    return guard


def leading_to(request: HubRequest, name: str) -> HttpResponse:
    """Send a fragment's page elsewhere, and back to where it is afterwards."""
    here = request.htmx.current_url_abs_path or "/"
    return HttpResponseClientRedirect(f"{reverse(name)}?{urlencode({'next': here})}")


def person(request: HubRequest) -> User:
    if not isinstance(request.user, User):
        raise Http404
    return request.user


def number(request: HubRequest, name: str) -> int | None:
    """A number of the form; nothing for an empty field. Raises ``Invalid``."""
    given = request.POST.get(name, "").strip()
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 12):
        raise Invalid([{"field": name, "rule": "must be a whole number"}])
    return int(given)
