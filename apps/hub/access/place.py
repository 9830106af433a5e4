"""A place that a role counts over, as a form names one: the organization, a project, an agent, a run."""

from __future__ import annotations

from typing import Any

from django.http import QueryDict

from apps.agents.models import Agent
from apps.core.errors import Invalid
from apps.identity import places
from apps.identity.models import User
from apps.identity.types import Place, Scope
from apps.projects.models import Project


def choices(user: User) -> dict[str, Any]:
    """What the form offers."""
    return {
        "projects": Project.objects.visible_to(user).order_by("name"),
        "agents": Agent.objects.visible_to(user).order_by("title"),
    }


def read(user: User, typed: QueryDict) -> Place:
    """The place that was chosen; raise ``Invalid``, or ``NotFound`` for what one cannot see."""
    scope = typed.get("scope", "")
    ref = "" if scope == Scope.ORGANIZATION else typed.get(scope, "").strip()
    if scope != Scope.ORGANIZATION and not ref:
        raise Invalid([{"field": scope or "scope", "rule": "must be chosen"}])
    return places.find(user, scope, ref)
