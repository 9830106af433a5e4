"""Scripts as people write them: an agent of kind ``script`` and its versions, saved step by step."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from apps.agents.models import Agent, AgentVersion
from apps.agents.services import registry
from apps.core.errors import Conflict
from apps.identity.actor import Actor


@transaction.atomic
def create(
    *, by: Actor, slug: str, title: str, description: str, spec: dict[str, Any]
) -> AgentVersion:
    """Register a script with its first draft, or neither. Raises what the registry raises."""
    agent = registry.register(by=by, slug=slug, title=title, description=description)
    return registry.draft(by=by, agent=agent, spec=spec)


@transaction.atomic
def save(
    *, by: Actor, agent: Agent, seen: int, title: str, description: str, spec: dict[str, Any]
) -> AgentVersion:
    """Keep what was written as the next draft; the newest version when nothing is new.

    ``seen`` is the number of the version it was written upon: raises ``Conflict`` when somebody saved
    another one meanwhile. Raises what the registry raises.
    """
    registry.change(by=by, agent=agent, title=title, description=description)
    Agent.objects.select_for_update(no_key=True).get(pk=agent.pk)
    latest = newest(agent)
    if latest is not None and latest.number != seen:
        raise Conflict(
            reason=f"Somebody saved version {latest.number} meanwhile. Look at it in another tab; "
            "saving again puts yours on top of it."
        )
    if latest is not None and latest.spec == spec:
        return latest
    return registry.draft(by=by, agent=agent, spec=spec)


def newest(agent: Agent) -> AgentVersion | None:
    """The version that was saved last, released or not."""
    return agent.versions.order_by("-number").first()
