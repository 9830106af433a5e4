"""What the pages of access have in common."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.urls import reverse

from apps.hub import frame
from apps.hub.visiting import HubRequest
from apps.identity import policy
from apps.identity.models import Department, Proposal, User
from apps.identity.rest import page_actor


def context(request: HubRequest, *, tab: str) -> dict[str, Any]:
    by = page_actor(request)
    return {
        "page": "access",
        "tab": tab,
        "frame": frame.of(request),
        "two_person": settings.AOS_TWO_PERSON,
        "proposed": Proposal.objects.visible_to(by.user).waiting().count(),
        "may_manage": policy.allows(by, "people.manage"),
        # Whoever changes something is asked for a fresh proof; better before a form than after it.
        "is_stale": by.is_stale,
    }


def page_of(subject: User | Department) -> str:
    if isinstance(subject, Department):
        return reverse("access_department", args=[subject.pk])
    return reverse("access_person", args=[subject.pk])
