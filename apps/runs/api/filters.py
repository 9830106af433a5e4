"""What a list of runs may be narrowed by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.request import Request

from apps.agents.models import Agent
from apps.core.rest.references import find
from apps.core.rest.strict import query
from apps.identity.models import User
from apps.identity.rest import actor
from apps.projects.models import Project
from apps.runs.api.serializers import RunFilterSerializer
from apps.runs.models import RunQuerySet
from apps.runs.types import RunFilter


def narrow(runs: RunQuerySet, request: Request) -> RunQuerySet:
    """Apply the query's filters; a project or agent nobody can see is a 404, a typo a 422."""
    wanted = query(RunFilterSerializer, request.query_params)
    return runs.matching(filter_of(actor(request).user, wanted))


def filter_of(user: User, wanted: Mapping[str, Any]) -> RunFilter:
    """A validated filter with its project and agent found; raise ``NotFound``."""
    given = {name: value for name, value in wanted.items() if name not in {"project", "agent"}}
    if ref := wanted.get("project"):
        given["project_id"] = find(Project.objects.visible_to(user), ref, what="project").pk
    if ref := wanted.get("agent"):
        given["agent_id"] = find(Agent.objects.visible_to(user), ref, what="agent").pk
    return RunFilter(**given)
