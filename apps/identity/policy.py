"""May this actor do this here? The one place that answers, from the one matrix."""

from __future__ import annotations

from uuid import UUID

from apps.core.errors import NotAllowed
from apps.identity import denials
from apps.identity.actor import Actor
from apps.identity.errors import ScopeMissing, StepUpRequired
from apps.identity.matrix import MATRIX
from apps.identity.models import Binding
from apps.identity.types import Scope, at_least


def allows(by: Actor, action: str, *, project_id: UUID | None = None) -> bool:
    """Whether a binding of this person grants the action.

    Without ``project_id`` the action must be granted over the organization; a viewer's look at
    lists asks with ``project_id`` left out only where any binding will do (see ``may_enter``).
    """
    held = Binding.objects.of(by.user).filter(role__in=at_least(MATRIX[action].role))
    if project_id is None:
        return held.filter(scope=Scope.ORGANIZATION).exists()
    over_project = held.filter(scope=Scope.PROJECT, scope_id=project_id)
    return (held.filter(scope=Scope.ORGANIZATION) | over_project).exists()


def may_enter(by: Actor, action: str) -> bool:
    """Whether the person holds the action's role anywhere: enough to ask, not enough to see."""
    roles = at_least(MATRIX[action].role)
    return Binding.objects.of(by.user).filter(role__in=roles).exists()


def require(by: Actor, action: str, *, project_id: UUID | None = None) -> None:
    """Raise ``NotAllowed`` unless the role grants it, ``ScopeMissing`` unless the token does.

    Raises ``StepUpRequired`` when the action needs a fresh proof and the session has an old one.
    """
    require_scope(by, action)
    if not allows(by, action, project_id=project_id):
        denials.note(by.ref, action, reason=NotAllowed.code, project_id=project_id)
        raise NotAllowed(action=action)
    _require_fresh(by, action)


def require_entry(by: Actor, action: str) -> None:
    """The same for acts on one's own things: the role may be held anywhere."""
    require_scope(by, action)
    if not may_enter(by, action):
        denials.note(by.ref, action, reason=NotAllowed.code)
        raise NotAllowed(action=action)
    _require_fresh(by, action)


def _require_fresh(by: Actor, action: str) -> None:
    if MATRIX[action].step_up:
        require_fresh(by, action)


def require_fresh(by: Actor, action: str) -> None:
    """Raise ``StepUpRequired`` for a session that has not proved lately who it is."""
    if by.is_stale:
        denials.note(by.ref, action, reason=StepUpRequired.code)
        raise StepUpRequired(action=action)


def require_scope(by: Actor, action: str) -> None:
    scope = MATRIX[action].scope
    if by.token is not None and scope not in by.token.scopes:
        denials.note(by.ref, action, reason=ScopeMissing.code)
        raise ScopeMissing(scope=scope)
