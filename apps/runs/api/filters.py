"""What a list of runs may be narrowed by."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from rest_framework.request import Request

from apps.agents.models import Agent
from apps.core.rest.references import find
from apps.core.rest.strict import query
from apps.identity.rest import actor
from apps.projects.models import Project
from apps.runs.api.serializers import RunFilterSerializer
from apps.runs.models import RunQuerySet
from apps.runs.types import DISPATCHED, LeaseState, RunState

_SENT = Q(lease__state=LeaseState.DISPATCHED)
_LOOKUPS = {
    "queue": "queue",
    "trace_id": "trace_id",
    "created_after": "created_at__gte",
    "created_before": "created_at__lt",
}


def narrow(runs: RunQuerySet, request: Request) -> RunQuerySet:
    """Apply the query's filters; a project or agent nobody can see is a 404, a typo a 422."""
    wanted = query(RunFilterSerializer, request.query_params)
    runs = runs.filter(**{_LOOKUPS[name]: wanted[name] for name in _LOOKUPS if name in wanted})
    if state := wanted.get("state"):
        runs = runs.filter(_in_state(state))
    return runs.filter(**_owners(request, wanted))


def _in_state(state: str) -> Q:
    """``dispatched`` is shown, not stored: a queued run that was sent to a worker."""
    if state == DISPATCHED:
        return Q(state=RunState.QUEUED) & _SENT
    if state == RunState.QUEUED:
        return Q(state=RunState.QUEUED) & ~_SENT
    return Q(state=state)


def _owners(request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
    user = actor(request).user
    owners: dict[str, Any] = {}
    if ref := wanted.get("project"):
        owners["project"] = find(Project.objects.visible_to(user), ref, what="project")
    if ref := wanted.get("agent"):
        agent = find(Agent.objects.visible_to(user), ref, what="agent")
        owners["agent_version__agent"] = agent
    return owners
