"""What runs, schedules and limits have to say when an agent is deleted."""

from __future__ import annotations

from apps.agents.models import Agent
from apps.identity.actor import Actor
from apps.runs.errors import AgentInUse
from apps.runs.models import Run, Schedule
from apps.runs.services import limits, schedules
from apps.runs.types import FINAL


def open_runs(agent: Agent) -> int:
    """How many runs of it have not ended."""
    return Run.objects.filter(agent_version__agent=agent).exclude(state__in=FINAL).count()


def let_go(by: Actor, agent: Agent) -> dict[str, int]:
    """Remove its schedules and its limit, each on record. Raises ``AgentInUse`` while it has runs that are not over.

    A run that is accepted in this very moment goes on to its end, as long as somebody's role reaches it.
    """
    if count := open_runs(agent):
        raise AgentInUse(agent=agent.slug, count=count)
    found = Schedule.objects.filter(agent=agent).select_for_update(no_key=True).order_by("pk")
    rows = list(found)
    for row in rows:
        schedules.discard(row, by=by)
    return {"schedules": len(rows), "limits": limits.discard(by=by, about=limits.of_agent(agent))}
