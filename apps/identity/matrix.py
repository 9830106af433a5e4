"""The permission matrix: every action, the least role that may do it, and the token scope it needs.

Deny by default: what is not here cannot be asked for. Roles are nested (viewer < operator < admin <
owner), so one column says it all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from apps.identity.types import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``step_up`` actions need a session that has proved lately who it is."""

    role: Role
    scope: str
    step_up: bool = False


def _rule(role: Role, scope: str, *, step_up: bool = False) -> Rule:
    return Rule(role=role, scope=scope, step_up=step_up)


MATRIX: Final = {
    "event.read": _rule(Role.VIEWER, "event:read"),
    "project.read": _rule(Role.VIEWER, "project:read"),
    "project.manage": _rule(Role.ADMIN, "project:write"),
    "file.read": _rule(Role.VIEWER, "project:read"),
    "file.write": _rule(Role.OPERATOR, "project:write"),
    "agent.read": _rule(Role.VIEWER, "agent:read"),
    "agent.manage": _rule(Role.ADMIN, "agent:write"),
    "run.read": _rule(Role.VIEWER, "run:read"),
    "run.submit": _rule(Role.OPERATOR, "run:write"),
    "run.cancel": _rule(Role.OPERATOR, "run:write"),
    "run.rerun": _rule(Role.OPERATOR, "run:write"),
    "schedule.read": _rule(Role.VIEWER, "run:read"),
    "schedule.manage": _rule(Role.OPERATOR, "schedule:write"),
    "audit.read": _rule(Role.ADMIN, "audit:read"),
    "audit.export": _rule(Role.ADMIN, "audit:export", step_up=True),
    "token.manage": _rule(Role.VIEWER, "token:write"),
    "admin.view": _rule(Role.ADMIN, "admin"),
    "people.manage": _rule(Role.ADMIN, "admin", step_up=True),
    "queue.watch": _rule(Role.OPERATOR, "queue:read"),
    "metrics.read": _rule(Role.OPERATOR, "metrics:read"),
}

SCOPES: Final = tuple(sorted({rule.scope for rule in MATRIX.values()}))
# A token with one of these does what a stale session may not, so a stale session cannot make it.
STEP_UP_SCOPES: Final = frozenset(rule.scope for rule in MATRIX.values() if rule.step_up)
