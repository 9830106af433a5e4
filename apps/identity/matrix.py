"""The permission matrix: every action, the least role that may do it, where a binding may grant it,
and the token scope it needs.

Deny by default: what is not here cannot be asked for. Roles are nested (viewer < operator < admin <
owner), so one column says it all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from apps.identity.types import Role, Scope

_EVERYWHERE: Final = (Scope.ORGANIZATION,)
_IN_PROJECT: Final = (Scope.ORGANIZATION, Scope.PROJECT)
_OF_AGENT: Final = (Scope.ORGANIZATION, Scope.AGENT)
_WITH_AGENT: Final = (Scope.ORGANIZATION, Scope.PROJECT, Scope.AGENT)
_ON_RUN: Final = (Scope.ORGANIZATION, Scope.PROJECT, Scope.AGENT, Scope.RUN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the matrix.

    ``over`` lists the places at which a binding can grant it. ``anywhere`` actions are granted by the
    role at any of them, because they are about one's own things or shown to all who belong.
    ``audited`` actions leave an entry in the audit log; ``step_up`` ones need a session that has proved
    lately who it is; ``two_person`` ones take place when somebody else agrees, where
    ``AOS_TWO_PERSON`` says so.
    """

    summary: str
    role: Role
    scope: str
    over: tuple[Scope, ...] = _EVERYWHERE
    anywhere: bool = False
    audited: bool = False
    step_up: bool = False
    two_person: bool = False


MATRIX: Final = {
    "event.read": Rule(
        summary="See a project's value events",
        role=Role.VIEWER,
        scope="event:read",
        over=_IN_PROJECT,
    ),
    "project.read": Rule(
        summary="See a project", role=Role.VIEWER, scope="project:read", over=_IN_PROJECT
    ),
    "project.manage": Rule(
        summary="Create and change projects", role=Role.ADMIN, scope="project:write", audited=True
    ),
    "file.read": Rule(
        summary="See a project's input files",
        role=Role.VIEWER,
        scope="project:read",
        over=_IN_PROJECT,
    ),
    "file.write": Rule(
        summary="Upload input files",
        role=Role.OPERATOR,
        scope="project:write",
        over=_IN_PROJECT,
        audited=True,
    ),
    "agent.read": Rule(
        summary="See agents and their versions",
        role=Role.VIEWER,
        scope="agent:read",
        over=_ON_RUN,
        anywhere=True,
    ),
    "agent.manage": Rule(
        summary="Register and delete agents, draft and release versions",
        role=Role.ADMIN,
        scope="agent:write",
        over=_OF_AGENT,
        audited=True,
    ),
    "run.read": Rule(
        summary="See a run, its log and its artifacts",
        role=Role.VIEWER,
        scope="run:read",
        over=_ON_RUN,
    ),
    "run.submit": Rule(
        summary="Submit a run",
        role=Role.OPERATOR,
        scope="run:write",
        over=_WITH_AGENT,
        audited=True,
    ),
    "run.cancel": Rule(
        summary="Cancel a run", role=Role.OPERATOR, scope="run:write", over=_ON_RUN, audited=True
    ),
    # Not over one run: what it makes is another one.
    "run.rerun": Rule(
        summary="Run again, as a new run",
        role=Role.OPERATOR,
        scope="run:write",
        over=_WITH_AGENT,
        audited=True,
    ),
    # Not over one run either.
    "run.requeue": Rule(
        summary="Requeue or dismiss a dead letter",
        role=Role.OPERATOR,
        scope="run:write",
        over=_WITH_AGENT,
        audited=True,
    ),
    "run.bulk": Rule(
        summary="Cancel, re-run, requeue or dismiss all runs that match, in a project or everywhere",
        role=Role.OPERATOR,
        scope="run:write",
        over=_IN_PROJECT,
        audited=True,
    ),
    "schedule.read": Rule(
        summary="See a project's schedules",
        role=Role.VIEWER,
        scope="run:read",
        over=_IN_PROJECT,
    ),
    "schedule.manage": Rule(
        summary="Create, change, pause and remove schedules",
        role=Role.OPERATOR,
        scope="schedule:write",
        over=_IN_PROJECT,
        audited=True,
    ),
    "environment.read": Rule(
        summary="See environments, sandboxes, and the profiles and images they are made from",
        role=Role.VIEWER,
        scope="sandbox:read",
        over=_IN_PROJECT,
    ),
    # Over a project for its own; those that all share need the role over the organization.
    "environment.manage": Rule(
        summary="Make, change and remove environments",
        role=Role.ADMIN,
        scope="sandbox:write",
        over=_IN_PROJECT,
        audited=True,
    ),
    "audit.read": Rule(
        summary="Read and verify the audit log", role=Role.ADMIN, scope="audit:read"
    ),
    "audit.export": Rule(
        summary="Export the audit log",
        role=Role.ADMIN,
        scope="audit:export",
        audited=True,
        step_up=True,
    ),
    "token.manage": Rule(
        summary="Issue and revoke one's own API tokens",
        role=Role.VIEWER,
        scope="token:write",
        over=_ON_RUN,
        anywhere=True,
        audited=True,
    ),
    "admin.view": Rule(summary="Enter the Django admin", role=Role.ADMIN, scope="admin"),
    "people.read": Rule(
        summary="See people, service accounts, departments and bindings",
        role=Role.ADMIN,
        scope="people:read",
    ),
    "people.manage": Rule(
        summary="Change people, service accounts, departments and bindings",
        role=Role.ADMIN,
        scope="admin",
        audited=True,
        step_up=True,
    ),
    "owner.grant": Rule(
        summary="Propose an owner, and agree to one",
        role=Role.OWNER,
        scope="admin",
        audited=True,
        step_up=True,
        two_person=True,
    ),
    "queue.watch": Rule(
        summary="Look at queues, workers and Flower", role=Role.OPERATOR, scope="queue:read"
    ),
    "queue.manage": Rule(
        summary="Pause and resume queues", role=Role.ADMIN, scope="queue:write", audited=True
    ),
    "limit.manage": Rule(
        summary="Set caps, rates and the most that may wait",
        role=Role.ADMIN,
        scope="queue:write",
        audited=True,
    ),
    # It destroys records when it is shortened.
    "retention.manage": Rule(
        summary="Decide how long ended runs are kept",
        role=Role.OWNER,
        scope="queue:write",
        audited=True,
    ),
    "agent.pause": Rule(
        summary="Pause and resume an agent",
        role=Role.ADMIN,
        scope="agent:write",
        over=_OF_AGENT,
        audited=True,
    ),
    "metrics.read": Rule(
        summary="Read the platform's metrics", role=Role.OPERATOR, scope="metrics:read"
    ),
}

SCOPES: Final = tuple(sorted({rule.scope for rule in MATRIX.values()}))
# What each scope lets a token do, where the role of its person allows it.
SCOPE_WORDS: Final = {
    scope: "; ".join(rule.summary for rule in MATRIX.values() if rule.scope == scope)
    for scope in SCOPES
}
# A token with one of these does what a stale session may not, so a stale session cannot make it.
STEP_UP_SCOPES: Final = frozenset(rule.scope for rule in MATRIX.values() if rule.step_up)
