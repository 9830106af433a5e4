"""What the pages about sandboxes have in common."""

from __future__ import annotations

from typing import Any

from apps.hub import frame
from apps.hub.visiting import HubRequest
from apps.identity import policy
from apps.identity.rest import page_actor
from apps.projects.models import Project


def context(request: HubRequest, *, tab: str, project: Project | None = None) -> dict[str, Any]:
    around = frame.of(request, project=project)
    return {"page": "sandboxes", "tab": tab, "frame": around, "project": around.project}


def may_manage(request: HubRequest, project: Project | None) -> bool:
    """Whether the person may change the environments of this place; none is the organization."""
    place = project.pk if project else None
    return policy.allows(page_actor(request), "environment.manage", project_id=place)
