"""Starting runs under a run: by a person who may, or by the code of the run itself.

A child never does what the one who submitted the parent may not: what the parent's code starts, it starts in
that person's name; what somebody else puts under the parent, both must be allowed to.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from apps.agents.models import Agent, AgentVersion
from apps.core.errors import AosError, Invalid, NotAllowed
from apps.core.rest import references
from apps.identity import policy
from apps.identity.actor import Actor
from apps.projects.models import Project
from apps.runs.errors import ChildKeyReused
from apps.runs.models import Run
from apps.runs.services import acts, kin, submission
from apps.runs.services.kin import Bond
from apps.runs.services.submission import Wanted
from apps.runs.types import OnParentEnd, Priority, Started, TaskSpec

_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A child that the code of a run asks for. What is ``None`` is the parent's, or the agent's own."""

    agent: str
    input: dict[str, Any]
    priority: Priority | None = None
    queue: str = "default"
    timeout_s: int | None = None
    total_deadline_s: int | None = None
    labels: dict[str, str] | None = None
    requires: dict[str, str] | None = None
    concurrency_key: str = ""
    on_parent_end: OnParentEnd = OnParentEnd.CANCEL


def require(by: Actor, bond: Bond, *, agent: Agent) -> None:
    """Raise ``NotAllowed`` unless the person may put runs under this one, and its submitter this agent's."""
    parent = bond.parent
    place = parent.place
    policy.require(by, "run.submit", project_id=place["project_id"], agent_id=place["agent_id"])
    behind = Actor(user=parent.submitted_by)
    if not submission.may_run(behind, project_id=parent.project_id, agent_id=agent.pk):
        policy.refuse(by, "run.submit", project_id=parent.project_id)


def submit(
    *,
    by: Actor,
    bond: Bond,
    project: Project,
    agent: Agent | AgentVersion,
    task: TaskSpec,
    key: str,
) -> submission.Submission:
    """Start a run under another one, as a person. Raises what ``submission.submit`` raises.

    Raises ``ParentIsOver``, ``TooDeep`` and ``TooManyChildren`` as well.
    """
    if isinstance(agent, AgentVersion):
        require(by, bond, agent=agent.agent)
        return submission.submit_version(
            by=by, project=project, version=agent, task=task, key=key, under=bond
        )
    require(by, bond, agent=agent)
    return submission.submit(by=by, project=project, agent=agent, task=task, key=key, under=bond)


def submit_bulk(
    *, by: Actor, wanted: Sequence[Wanted | AosError], key: str, body: object
) -> submission.Bulk:
    """Accept many tasks, of which some are to be children. As ``submission.submit_bulk``."""
    doors: dict[tuple[int, UUID], AosError | None] = {}
    judged = [_judge(by, each, doors) for each in wanted]
    return submission.submit_bulk(by=by, wanted=judged, key=key, body=body)


def _judge(
    by: Actor, wanted: Wanted | AosError, doors: dict[tuple[int, UUID], AosError | None]
) -> Wanted | AosError:
    if isinstance(wanted, AosError) or wanted.under is None:
        return wanted
    pair = (wanted.under.parent.pk, wanted.agent.pk)
    if pair not in doors:
        doors[pair] = _door(by, wanted.under, wanted.agent)
    return doors[pair] or wanted


def _door(by: Actor, bond: Bond, agent: Agent) -> AosError | None:
    try:
        require(by, bond, agent=agent)
    except NotAllowed as error:
        return error
    return None


@transaction.atomic
def start(started: Started, wish: Wish, *, key: str) -> Run:
    """Start a child in the name of a lease. The same key gives the same child, in later attempts too.

    Raises ``LeaseLost`` for whoever is not the holder any more, ``ChildKeyReused`` when something else was
    asked for under the key, and what ``submit`` raises.
    """
    if not _KEY.fullmatch(key):
        raise Invalid([{"field": "key", "rule": "must be 1 to 200 visible ASCII characters"}])
    rows = Run.objects.select_related("submitted_by", "project", "agent_version__agent")
    parent = rows.get(pk=started.lease.run_id)
    bond = Bond(
        parent=parent,
        on_parent_end=wish.on_parent_end,
        key=key,
        fingerprint=_fingerprint(wish),
        token=started.lease.token,
    )
    if (earlier := kin.lock(bond)) is not None:
        if earlier.fingerprint != bond.fingerprint:
            raise ChildKeyReused(key=key)
        return earlier.run
    by = acts.ActingRun(user=parent.submitted_by, run=parent)
    agents = Agent.objects.visible_to(by.user).select_related("current")
    agent = references.find(agents, wish.agent, what="agent")
    task = TaskSpec(
        input=wish.input,
        priority=Priority(parent.priority) if wish.priority is None else wish.priority,
        queue=wish.queue,
        timeout_s=wish.timeout_s,
        total_deadline_s=wish.total_deadline_s,
        labels=wish.labels or {},
        requires=wish.requires or {},
        concurrency_key=wish.concurrency_key,
    )
    return submission.submit(by=by, project=parent.project, agent=agent, task=task, under=bond).run


def _fingerprint(wish: Wish) -> str:
    text = json.dumps(asdict(wish), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def look(started: Started, ids: Sequence[UUID]) -> list[Run]:
    """How these children of the run stand, in this order. Those of others are left out."""
    rows = Run.objects.filter(child_of__parent=started.lease.run_id, public_id__in=ids)
    found = {run.public_id: run for run in rows.defer("spec", "trace")}
    return [found[each] for each in ids if each in found]
