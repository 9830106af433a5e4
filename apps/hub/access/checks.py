"""What may somebody do, and which of their roles makes it so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.core.errors import AosError
from apps.hub.access import place, roster
from apps.hub.access.asking import show
from apps.hub.access.desk import page_of
from apps.hub.access.roster import Held
from apps.hub.visiting import HubRequest, may, person, signed_in
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.matrix import MATRIX
from apps.identity.models import User
from apps.identity.types import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``held`` are the roles that grant it; when none does, those that do not reach."""

    is_allowed: bool
    says: str
    held: list[Held]


@signed_in
@may("people.read")
@never_cache
@require_GET
def check(request: HubRequest, user_id: UUID) -> HttpResponse:
    user, typed = person(request), request.GET
    subject = get_object_or_404(User.objects.visible_to(user), pk=user_id)
    told: dict[str, Any] = {
        "subject": subject,
        "actions": MATRIX.items(),
        "typed": typed,
        "back": page_of(subject),
    } | place.choices(user)
    error: AosError | None = None
    if typed.get("action", "") in MATRIX:
        try:
            told["answer"] = _answer(user, subject, typed["action"], place.read(user, typed))
        except AosError as found:
            error = found
            told["error"] = str(error)
    return show(request, "hub/access/check.html", told, error=error)


def _answer(user: User, subject: User, action: str, where: Place) -> Answer:
    verdict = policy.explain(Actor(user=subject), action, where)
    held = roster.told(verdict.through, to=user)
    return Answer(is_allowed=verdict.is_allowed, says=_says(subject, action, held), held=held)


def _says(subject: User, action: str, held: list[Held]) -> str:
    rule = MATRIX[action]
    if not subject.is_active:
        return "The account is disabled."
    if rule.anywhere:
        needed = f"It needs the role {rule.role} anywhere."
    else:
        needed = f"It needs the role {rule.role} over the {' or the '.join(rule.over)}."
    proof = " A browser needs a fresh proof for it." if rule.step_up else ""
    return (
        f"{needed}{proof} They hold:" if held else f"{needed}{proof} No role of theirs reaches it."
    )
