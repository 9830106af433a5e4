"""May this actor do this here? The one place that answers, from the one matrix.

In a web request what a person holds is read at the first question and remembered for the next ones
(``apps.core.memory``); everywhere else each question is asked of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from apps.core.errors import NotAllowed
from apps.identity import denials, holdings
from apps.identity.actor import Actor
from apps.identity.errors import ScopeMissing, StepUpRequired
from apps.identity.holdings import Holding
from apps.identity.matrix import MATRIX, Rule
from apps.identity.models import Binding, BindingQuerySet, User
from apps.identity.types import RANK, Place, Role, Scope, at_least


def allows(
    by: Actor,
    action: str,
    *,
    project_id: UUID | None = None,
    agent_id: UUID | None = None,
    run_id: UUID | None = None,
) -> bool:
    """Whether a binding of this person grants the action here.

    Without a place the action must be granted over the organization. For a run, name its project
    and its agent too: a binding over any of the three will do.
    """
    where = {Scope.PROJECT: project_id, Scope.AGENT: agent_id, Scope.RUN: run_id}
    held = holdings.remembered(by.user)
    if held is None:
        return _granting(by, action, where).exists()
    return any(_grants(one, MATRIX[action], where) for one in held)


def _grants(held: Holding, rule: Rule, where: dict[Scope, UUID | None]) -> bool:
    """As ``_granting`` asks PostgreSQL, of a binding at hand. tests/db/core/test_reach.py holds the two
    together."""
    if RANK[Role(held.role)] < RANK[rule.role]:
        return False
    if rule.anywhere or held.scope == Scope.ORGANIZATION:
        return True
    scope = Scope(held.scope)
    return scope in rule.over and where[scope] == held.scope_id


def _granting(by: Actor, action: str, where: dict[Scope, UUID | None]) -> BindingQuerySet:
    rule = MATRIX[action]
    held = Binding.objects.of(by.user).filter(role__in=at_least(rule.role))
    if rule.anywhere:
        return held
    over = Q(scope=Scope.ORGANIZATION)
    for scope, scope_id in where.items():
        if scope_id is not None and scope in rule.over:
            over |= Q(scope=scope, scope_id=scope_id)
    return held.filter(over)


def may_enter(by: Actor, action: str) -> bool:
    """Whether the person holds the role where it can grant the action: enough to ask, not to see."""
    rule = MATRIX[action]
    held = holdings.remembered(by.user)
    if held is None:
        bindings = Binding.objects.of(by.user).filter(role__in=at_least(rule.role))
        return bindings.filter(scope__in=rule.over).exists()
    return any(RANK[Role(one.role)] >= RANK[rule.role] and one.scope in rule.over for one in held)


def require(
    by: Actor,
    action: str,
    *,
    project_id: UUID | None = None,
    agent_id: UUID | None = None,
    run_id: UUID | None = None,
) -> None:
    """Raise ``NotAllowed`` unless the role grants it, ``ScopeMissing`` unless the token does.

    Raises ``StepUpRequired`` when the action needs a fresh proof and the session has an old one.
    """
    require_scope(by, action)
    if not allows(by, action, project_id=project_id, agent_id=agent_id, run_id=run_id):
        refuse(by, action, project_id=project_id)
    _require_fresh(by, action)


def require_entry(by: Actor, action: str) -> None:
    """The same for acts on one's own things: the role may be held anywhere."""
    require_scope(by, action)
    if not may_enter(by, action):
        refuse(by, action)
    _require_fresh(by, action)


def refuse(by: Actor, action: str, *, project_id: UUID | None = None) -> None:
    """Put the refusal on record and raise ``NotAllowed``."""
    denials.note(by.ref, action, reason=NotAllowed.code, project_id=project_id)
    raise NotAllowed(action=action)


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


# --- who stands where -----------------------------------------------------------------------------
# Asked behind locks, about what may have changed a moment ago: always of the database.


def standing(user: User) -> int:
    """How far the person's role over the organization reaches."""
    return _highest(Binding.objects.of(user).filter(scope=Scope.ORGANIZATION))


def highest(user: User) -> int:
    """How far the person's highest role reaches, wherever it is held."""
    return _highest(Binding.objects.of(user))


def _highest(held: BindingQuerySet) -> int:
    return max((RANK[Role(role)] for role in held.values_list("role", flat=True)), default=0)


def require_not_above(by: Actor, user: User) -> None:
    """Nobody changes somebody who stands above them; raises ``NotAllowed``."""
    if user.pk != by.user.pk and highest(user) > standing(by.user):
        refuse_above(by, "changing somebody who holds a role above yours")


def refuse_above(by: Actor, act: str) -> None:
    denials.note(by.ref, "people.manage", reason=NotAllowed.code)
    raise NotAllowed(action=act)


# --- why ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether an actor may do something somewhere, and what makes it so.

    ``code`` is that of the error they would get, empty when they may. ``through`` are the bindings
    that grant it; when none does, those they hold there with a lesser role.
    """

    code: str
    why: str
    through: tuple[Binding, ...]

    @property
    def is_allowed(self) -> bool:
        return not self.code


def explain(by: Actor, action: str, place: Place) -> Verdict:
    """What ``require`` would say, in words. Nothing is put on record: asking is no attempt."""
    rule = MATRIX[action]
    where = {
        Scope.PROJECT: place.project_id,
        Scope.AGENT: place.agent_id,
        Scope.RUN: place.run_id,
    }
    granting = tuple(_granting(by, action, where).select_related("department"))
    if not granting:
        return _denied(by, action, place, where)
    if by.token is not None and rule.scope not in by.token.scopes:
        why = f"The role allows it; this API token lacks the scope {rule.scope}."
        return Verdict(code=ScopeMissing.code, why=why, through=granting)
    if rule.step_up and by.is_stale:
        why = "The role allows it, after a fresh proof that it is you: open /account/verify."
        return Verdict(code=StepUpRequired.code, why=why, through=granting)
    return Verdict(code="", why=f"{_told(granting[0])} allows it.", through=granting)


def _denied(by: Actor, action: str, place: Place, where: dict[Scope, UUID | None]) -> Verdict:
    rule = MATRIX[action]
    here = Q(scope=Scope.ORGANIZATION)
    for scope, scope_id in where.items():
        if scope_id is not None:
            here |= Q(scope=scope, scope_id=scope_id)
    held = tuple(Binding.objects.of(by.user).filter(here).select_related("department"))
    needed = f"{action} needs the role {rule.role} over {_alternatives(rule.over)}"
    has = "; ".join(_told(binding) for binding in held) or f"no role reaches {place}"
    return Verdict(code=NotAllowed.code, why=f"{needed}. You hold: {has}.", through=held)


def _alternatives(over: tuple[Scope, ...]) -> str:
    names = [f"the {scope}" for scope in over]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _told(binding: Binding) -> str:
    via = f" through {binding.department.name}" if binding.department else ""
    return f"the role {binding.role} over the {binding.scope}{via}"
