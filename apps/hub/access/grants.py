"""Giving a role to a person, a service account or a department, and taking one back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from apps.core import clock
from apps.core.errors import AosError, Invalid
from apps.hub.access import place
from apps.hub.access.asking import REASON, Ask, Done, arrive, ask, show
from apps.hub.access.desk import page_of
from apps.hub.visiting import HubRequest, may, person, signed_in
from apps.identity.errors import SecondPersonNeeded, StepUpRequired
from apps.identity.models import Binding, Department, User
from apps.identity.rest import page_actor
from apps.identity.services import bindings, proposals
from apps.identity.types import Role

Subject = User | Department
_UNTIL: Final = "until"
_LASTS: Final = {
    "": ("No end", None),
    "1h": ("1 hour", timedelta(hours=1)),
    "8h": ("8 hours", timedelta(hours=8)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
    "90d": ("90 days", timedelta(days=90)),
}
# Enough to choose from. Whoever is not among them has a page of their own, which names them here.
_LISTED: Final = 500


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def grant(request: HubRequest) -> HttpResponse:
    """One form: who, which role, over what, until when, and why."""
    user = person(request)
    typed = request.POST if request.method == "POST" else request.GET
    if request.method == "POST":
        try:
            return arrive(request, _grant(request, typed))
        except StepUpRequired:
            raise
        except AosError as error:
            context = _context(user, typed, error)
            return show(request, "hub/access/grant.html", context, error=error)
    return show(request, "hub/access/grant.html", _context(user, typed, None))


def _grant(request: HubRequest, typed: QueryDict) -> Done:
    by = page_actor(request)
    subject, role = _subject(by.user, typed.get("who", "")), _role(typed.get("role", ""))
    reason = typed.get("reason", "").strip()[:200]
    try:
        binding = bindings.grant(
            by=by,
            subject=subject,
            role=role,
            place=place.read(by.user, typed),
            expires_at=_end(typed),
            reason=reason,
        )
    except SecondPersonNeeded:
        if not isinstance(subject, User) or typed.get("lasts"):
            raise
        proposals.propose(by=by, user=subject, reason=reason)
        said = f"{subject} is proposed as an owner. Another owner has to agree within a day."
        return Done(said=said, href=reverse("access_proposals"))
    return Done(
        said=f"{subject} is {binding.get_role_display().lower()} now.", href=page_of(subject)
    )


def _subject(user: User, who: str) -> Subject:
    kind, _, ref = who.partition(":")
    try:
        key = UUID(ref)
    except ValueError:
        key = None
    found: Subject | None = None
    if key is not None and kind == "user":
        found = User.objects.visible_to(user).filter(pk=key).first()
    elif key is not None and kind == "department":
        found = Department.objects.visible_to(user).filter(pk=key).first()
    if found is None:
        raise Invalid([{"field": "who", "rule": "must be chosen"}])
    return found


def _role(text: str) -> Role:
    if text not in Role.values:
        raise Invalid([{"field": "role", "rule": "must be chosen"}])
    return Role(text)


def _end(typed: QueryDict) -> datetime | None:
    lasts = typed.get("lasts", "")
    if lasts != _UNTIL:
        _, length = _LASTS.get(lasts, _LASTS[""])
        return clock.now() + length if length else None
    try:
        moment = datetime.fromisoformat(typed.get("until", ""))
    except ValueError as error:
        raise Invalid([{"field": "until", "rule": "must be a day and a time"}]) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _context(user: User, typed: Any, error: AosError | None) -> dict[str, Any]:
    everybody = list(
        User.objects.visible_to(user).filter(is_active=True).order_by("username")[:_LISTED]
    )
    departments = list(Department.objects.visible_to(user).order_by("name")[:_LISTED])
    chosen = _chosen(user, typed.get("who", ""))
    if isinstance(chosen, User) and chosen not in everybody:
        everybody.append(chosen)
    return {
        "people": [each for each in everybody if not each.is_service_account],
        "accounts": [each for each in everybody if each.is_service_account],
        "departments": departments,
        "roles": Role.choices,
        "lengths": [(value, label) for value, (label, _) in _LASTS.items()],
        "typed": typed,
        "who": _who(chosen),
        "typed_until": _moment(typed),
        "error": str(error) if error else "",
        "back": page_of(chosen) if chosen else reverse("access_people"),
    } | place.choices(user)


def _who(subject: Subject | None) -> str:
    if subject is None:
        return ""
    return f"{'user' if isinstance(subject, User) else 'department'}:{subject.pk.hex}"


def _moment(typed: Any) -> datetime | None:
    try:
        return _end(typed) if typed.get("lasts") == _UNTIL else None
    except Invalid:
        return None


def _chosen(user: User, who: str) -> Subject | None:
    try:
        return _subject(user, who)
    except Invalid:
        return None


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def revoke(request: HubRequest, binding_id: UUID) -> HttpResponse:
    visible = Binding.objects.visible_to(person(request)).select_related("user", "department")
    binding = get_object_or_404(visible, pk=binding_id)
    subject = binding.user or binding.department
    assert subject is not None  # noqa: S101  # a constraint of the table
    said = f"the role {binding.role}"

    def act(typed: QueryDict) -> Done:
        why = typed.get("reason", "").strip()
        bindings.revoke(by=page_actor(request), binding=binding, reason=why)
        return Done(said=f"{subject} no longer holds {said} there.", href=page_of(subject))

    what = Ask(
        title=f"Take {said} from {subject}?",
        text="It counts from the next request on. Runs that needed it are cancelled.",
        button="Take it back",
        back=page_of(subject),
        fields=(REASON,),
        is_danger=True,
    )
    return ask(request, what, act)
