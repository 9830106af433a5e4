"""Deleting an agent. What holds on to agents lives in apps above this one, and registers here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.db import transaction

from apps.agents.models import Agent
from apps.core import clock
from apps.events.services import changes, outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.services import bindings
from apps.identity.types import Scope

#: Lets go of a locked agent, or raises why it cannot be let go of. Says what it did, for the record.
LetGo = Callable[[Actor, Agent], dict[str, int]]
_holders: Final[list[LetGo]] = []


def register(let_go: LetGo) -> None:
    """Say who is asked before an agent is deleted, in the same transaction."""
    if let_go not in _holders:
        _holders.append(let_go)


@transaction.atomic
def remove(*, by: Actor, agent: Agent) -> None:
    """Delete it: nothing new begins with it. Its versions and runs stay, with log and receipt.

    Raises ``AgentInUse`` while runs of it have not ended. Its schedules, its limit and the roles over it
    go with it. Whoever makes one of these at the same moment waits for the lock, and is refused then by
    the trigger of migration ``0008_nothing_new_of_the_removed``.
    """
    policy.require(by, "agent.manage", agent_id=agent.pk)
    row = Agent.objects.visible_to(by.user).select_for_update().get(pk=agent.pk)
    detail: dict[str, int] = {}
    for let_go in _holders:
        detail |= let_go(by, row)
    detail["roles"] = bindings.clear(by=by, scope=Scope.AGENT, scope_id=row.pk, why="agent deleted")
    before = changes.of(row, "slug", "title", "description", "kind")
    row.removed_at = clock.now()
    row.save(update_fields=["removed_at", "updated_at"])
    outbox.audit(
        by.ref,
        "agent.remove",
        resource_type="agent",
        resource_id=row.pk,
        detail=detail,
        before=before,
    )
