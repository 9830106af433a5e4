"""Service accounts: what programs act as, and the tokens they hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods

from apps.core.errors import AosError
from apps.hub.access import roster
from apps.hub.access.asking import Ask, Done, Field, ask, show
from apps.hub.access.desk import context, page_of
from apps.hub.visiting import HubRequest, may, person, signed_in
from apps.identity.errors import StepUpRequired
from apps.identity.matrix import SCOPE_WORDS, STEP_UP_SCOPES
from apps.identity.models import ApiToken, User
from apps.identity.rest import page_actor
from apps.identity.services import people, tokens

_LIFETIMES: Final = (7, 30, 90, 365)


@signed_in
@may("people.read")
@never_cache
@require_GET
def index(request: HubRequest) -> HttpResponse:
    user = person(request)
    found = list(roster.service_accounts(user))
    held = roster.held_by(found, to=user)
    rows = [
        {"user": each, "held": [role for role in held[each.pk] if not role.is_over]}
        for each in found
    ]
    return render(
        request, "hub/access/accounts.html", context(request, tab="accounts") | {"rows": rows}
    )


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def create(request: HubRequest) -> HttpResponse:
    what = Ask(
        title="Make a service account",
        text="For a program that acts for nobody in particular. It never signs in: it uses tokens.",
        button="Make it",
        back=reverse("access_accounts"),
        fields=(
            Field(name="username", label="User name", help="Such as ci-reports."),
            Field(name="name", label="What it is", is_required=False),
        ),
    )

    def act(typed: QueryDict) -> Done:
        made = people.add_service_account(
            by=page_actor(request),
            username=typed.get("username", "").strip(),
            name=typed.get("name", "").strip(),
        )
        said = f"{made.username} is made. Give it a role, then a token."
        return Done(said=said, href=page_of(made))

    return ask(request, what, act)


@sensitive_variables("value")
@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def issue(request: HubRequest, user_id: UUID) -> HttpResponse:
    """A token of a service account. The answer to the form is the one place its value is shown."""
    visible = User.objects.visible_to(person(request)).service_accounts()
    account = get_object_or_404(visible, pk=user_id)
    told: dict[str, Any] = {
        "account": account,
        "scopes": SCOPE_WORDS,
        "fresh_scopes": STEP_UP_SCOPES,
        "lifetimes": _LIFETIMES,
        "typed": request.POST,
        "chosen": request.POST.getlist("scopes"),
        "back": page_of(account),
    }
    if request.method != "POST":
        return show(request, "hub/access/token.html", told)
    try:
        made, value = _issue(request, account)
    except StepUpRequired:
        raise
    except AosError as error:
        told["error"] = str(error)
        return show(request, "hub/access/token.html", told, error=error)
    return show(request, "hub/access/token_made.html", told | {"made": made, "value": value})


def _issue(request: HubRequest, account: User) -> tuple[ApiToken, str]:
    typed = request.POST
    days = typed.get("days", "")
    return tokens.issue(
        by=page_actor(request),
        account=account,
        name=typed.get("name", "").strip()[:80],
        scopes=typed.getlist("scopes"),
        lifetime=timedelta(days=int(days) if days.isdecimal() and len(days) < 6 else 0),
        networks=typed.get("networks", "").replace(",", " ").split(),
    )


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def revoke(request: HubRequest, token_id: UUID) -> HttpResponse:
    visible = ApiToken.objects.filter(user__organization=person(request).organization_id)
    token = get_object_or_404(visible.select_related("user"), pk=token_id)
    what = Ask(
        title=f"Revoke the token {token.name}?",
        text=f"Whatever uses it as {token.user.username} is refused from its next request on.",
        button="Revoke",
        back=page_of(token.user),
        is_danger=True,
    )

    def act(_: QueryDict) -> Done:
        tokens.revoke(by=page_actor(request), token=token)
        return Done(said=f"The token {token.name} is revoked.", href=page_of(token.user))

    return ask(request, what, act)
