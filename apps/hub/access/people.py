"""People and service accounts: who there is, what each may do, and letting them in and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods

from apps.core import clock
from apps.hub import devices
from apps.hub.access import roster
from apps.hub.access.asking import REASON, Ask, Done, Field, ask, show
from apps.hub.access.desk import context, page_of
from apps.hub.visiting import HubRequest, may, person, signed_in
from apps.identity import policy
from apps.identity.models import SignIn, User
from apps.identity.rest import page_actor
from apps.identity.services import passwords, people, second_factor, sessions

_ASKED = require_http_methods(["GET", "POST"])


@signed_in
@may("people.read")
@never_cache
@require_GET
def index(request: HubRequest) -> HttpResponse:
    """Everybody, by user name, with what they hold and when they were last seen."""
    user = person(request)
    query, after = request.GET.get("q", "").strip()[:100], request.GET.get("after", "")[:150]
    found = roster.people(user, query=query)
    page = list(found.filter(username__gt=after)[: roster.SIZE + 1])
    shown = page[: roster.SIZE]
    more = {"after": shown[-1].username} | ({"q": query} if query else {}) if shown else {}
    told = {
        "rows": _rows(shown, to=user),
        "query": query,
        "more": f"{reverse('access_people')}?{urlencode(more)}" if len(page) > roster.SIZE else "",
    }
    if request.htmx and not request.htmx.history_restore_request:
        part = "rows" if after else "sheet"
        return render(request, f"hub/access/people_{part}.html", told)
    return render(request, "hub/access/people.html", context(request, tab="people") | told)


def _rows(users: list[User], *, to: User) -> list[dict[str, Any]]:
    held = roster.held_by(users, to=to)
    return [
        {"user": user, "held": [each for each in held[user.pk] if not each.is_over]}
        for user in users
    ]


@signed_in
@may("people.read")
@never_cache
@require_GET
def one(request: HubRequest, user_id: UUID) -> HttpResponse:
    """A person, or a service account, with everything one can do about them."""
    return render(request, "hub/access/person.html", portrait(request, _find(request, user_id)))


def portrait(request: HubRequest, subject: User) -> dict[str, Any]:
    by = page_actor(request)
    tab = "accounts" if subject.is_service_account else "people"
    is_above = subject.pk != by.user.pk and policy.highest(subject) > policy.standing(by.user)
    signed = SignIn.objects.filter(user=subject).lasting()
    return context(request, tab=tab) | {
        "subject": subject,
        "is_self": subject.pk == by.user.pk,
        "is_above": is_above,
        "may_change": policy.allows(by, "people.manage") and not is_above,
        "held": roster.held_by([subject], to=by.user)[subject.pk],
        "browsers": [{"row": row, "name": devices.name(row.agent)} for row in signed],
        "second_factor": second_factor.is_on(subject),
        "tokens": roster.tokens_of(subject, to=by.user),
        "now": clock.now(),
    }


def _find(request: HubRequest, user_id: UUID) -> User:
    return get_object_or_404(User.objects.visible_to(person(request)), pk=user_id)


# Letting in and out


@sensitive_post_parameters("password")
@signed_in
@may("people.read")
@never_cache
@_ASKED
def add(request: HubRequest) -> HttpResponse:
    what = Ask(
        title="Add a person",
        text="They may do nothing until they are given a role.",
        button="Add them",
        back=reverse("access_people"),
        fields=(
            Field(name="username", label="User name", help="What they sign in with."),
            Field(name="first_name", label="First name", is_required=False),
            Field(name="last_name", label="Last name", is_required=False),
            Field(name="email", label="Email", kind="email", is_required=False, longest=254),
            Field(
                name="password",
                label="First password",
                kind="password",
                help="At least 12 characters. They choose their own when they first sign in.",
                longest=256,
                autocomplete="new-password",
            ),
        ),
    )

    def act(typed: QueryDict) -> Done:
        made = people.add(
            by=page_actor(request),
            **{field.name: typed.get(field.name, "") for field in what.fields},
        )
        return Done(said=f"{made.username} is added. Give them a role.", href=page_of(made))

    return ask(request, what, act)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Act:
    """What can be done to somebody; ``{name}`` stands for theirs."""

    title: str
    text: str
    button: str
    said: str
    is_danger: bool = True


_DEACTIVATE: Final = _Act(
    title="Disable {name}?",
    text="They are signed out everywhere, their tokens stop working, and runs of theirs that are under "
    "way are cancelled. Nothing is deleted, and you can enable them again.",
    button="Disable",
    said="{name} is disabled.",
)
_REACTIVATE: Final = _Act(
    title="Enable {name} again?",
    text="They hold the roles and tokens that are listed on their page.",
    button="Enable",
    said="{name} is enabled again.",
    is_danger=False,
)
_SIGN_OUT: Final = _Act(
    title="Sign {name} out everywhere?",
    text="Each of their browsers has to sign in again. Their API tokens go on working.",
    button="Sign out",
    said="{name} is signed out everywhere.",
    is_danger=False,
)
_RESET: Final = _Act(
    title="Take away the second factor of {name}?",
    text="For somebody whose app and recovery codes are gone. Be sure that it is they who ask: afterwards "
    "the password alone lets them in. They are signed out everywhere.",
    button="Take it away",
    said="{name} signs in with the password alone, and can set up a new app.",
)


@signed_in
@may("people.read")
@never_cache
@_ASKED
def deactivate(request: HubRequest, user_id: UUID) -> HttpResponse:
    by = page_actor(request)
    return _about(
        request,
        user_id,
        _DEACTIVATE,
        lambda user, why: people.deactivate(by=by, user=user, reason=why),
    )


@signed_in
@may("people.read")
@never_cache
@_ASKED
def reactivate(request: HubRequest, user_id: UUID) -> HttpResponse:
    by = page_actor(request)
    return _about(
        request, user_id, _REACTIVATE, lambda user, _: people.reactivate(by=by, user=user)
    )


@signed_in
@may("people.read")
@never_cache
@_ASKED
def sign_out(request: HubRequest, user_id: UUID) -> HttpResponse:
    by = page_actor(request)
    return _about(request, user_id, _SIGN_OUT, lambda user, _: sessions.end_all(by=by, user=user))


@signed_in
@may("people.read")
@never_cache
@_ASKED
def reset_second_factor(request: HubRequest, user_id: UUID) -> HttpResponse:
    by = page_actor(request)
    return _about(
        request,
        user_id,
        _RESET,
        lambda user, why: second_factor.reset(by=by, user=user, reason=why),
    )


@sensitive_variables("value")
@signed_in
@may("people.read")
@never_cache
@_ASKED
def give_password(request: HubRequest, user_id: UUID) -> HttpResponse:
    """For who has forgotten theirs. The answer to the form is the one place it is shown."""
    user = _find(request, user_id)
    hours = int(settings.AOS_FIRST_PASSWORD.total_seconds() // 3600)
    what = Ask(
        title=f"Give {user.username} a new password?",
        text="For somebody who has forgotten theirs. Be sure that it is they who ask. They choose their "
        f"own with it within {hours} hours, and are signed out everywhere now. A second factor stays.",
        button="Give it",
        back=page_of(user),
        fields=(REASON,),
    )

    def act(typed: QueryDict) -> HttpResponse:
        why = typed.get("reason", "").strip()[:200]
        value = passwords.give(by=page_actor(request), user=user, reason=why)
        told = {"subject": user, "value": value, "hours": hours, "back": page_of(user)}
        return show(request, "hub/access/password_made.html", told)

    return ask(request, what, act)


def _about(
    request: HubRequest, user_id: UUID, act: _Act, do: Callable[[User, str], object]
) -> HttpResponse:
    user = _find(request, user_id)

    def done(typed: QueryDict) -> Done:
        do(user, typed.get("reason", "").strip()[:200])
        return Done(said=act.said.format(name=user.username), href=page_of(user))

    what = Ask(
        title=act.title.format(name=user.username),
        text=act.text,
        button=act.button,
        back=page_of(user),
        fields=(REASON,) if act.is_danger else (),
        is_danger=act.is_danger,
    )
    return ask(request, what, done)
