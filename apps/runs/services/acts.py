"""What runs do in their persons' names, and what the engine does to many runs, on the audit record.

The actor of what a run does is the whole chain: the person the run works for, its agent, the run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from apps.events.services import outbox
from apps.events.types import ActorRef, platform
from apps.identity import denials
from apps.identity.actor import Actor
from apps.runs.models import Run
from apps.runs.types import Started


def chain_of(run: Run) -> ActorRef:
    """The run as an actor: what it does, it does for the person who submitted it."""
    return ActorRef(
        kind="agent",
        id=run.submitted_by_id,
        name=run.submitted_by.username,
        organization_id=run.organization_id,
        agent_id=run.agent_version.agent_id,
        run_id=run.public_id,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingRun(Actor):
    """A run that acts: it may what the person who submitted it may, and the record names the chain."""

    run: Run

    @property
    def ref(self) -> ActorRef:
        return chain_of(self.run)


@transaction.atomic
def refused(started: Started, action: str, *, reason: str, detail: Mapping[str, object]) -> None:
    """Record that the platform refused something to a run."""
    run = Run.objects.select_related("submitted_by", "agent_version").get(pk=started.lease.run_id)
    outbox.audit(
        chain_of(run),
        denials.ACTION,
        resource_type="action",
        resource_id=action,
        detail={"reason": reason, "project": run.project_id, **detail},
    )


def by_engine(action: str, runs: Iterable[Run]) -> None:
    """Record what the engine did to runs, once for each of their organizations."""
    homes: dict[UUID, list[str]] = defaultdict(list)
    for run in runs:
        homes[run.organization_id].append(str(run.public_id))
    for organization_id, ids in homes.items():
        outbox.audit(
            platform("engine", organization_id=organization_id),
            action,
            resource_type="organization",
            resource_id=organization_id,
            detail={"count": len(ids), "runs": ids},
        )
