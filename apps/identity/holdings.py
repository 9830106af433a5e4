"""What a person holds, read at once: for the many questions of one request, and for long lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple
from uuid import UUID

from apps.core import memory, sql, tenancy
from apps.identity.models import Binding, BindingQuerySet, User
from apps.identity.types import RANK, Role, Scope, at_least

_SQL: Final = sql.load("apps.identity.sql", "holdings.sql")
# Of somebody with more bindings than this, they are left to PostgreSQL.
_LISTED: Final = 500


class Holding(NamedTuple):
    role: str
    scope: str
    scope_id: UUID


def of(user: User) -> Sequence[Holding] | None:
    """All that holds for this person now, in a web request as it was at the first question; ``None``
    for somebody with very many bindings."""
    # Who sees nobody's rows yet finds no bindings either.
    key = ("holdings", tenancy.viewer(), user.pk, user.is_active)
    return memory.recall(key, lambda: _held(user))


def remembered(user: User) -> Sequence[Holding] | None:
    """The same where it will be of use again; ``None`` outside of web requests."""
    return of(user) if memory.is_kept() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Over what somebody holds a role: lists of ids where it can be, or else subqueries.

    From the ids PostgreSQL tells whether to walk the newest rows until a page is full, or to fetch a few
    by index.
    """

    everything: bool
    projects: Any
    agents: Any
    runs: Sequence[UUID] = ()
    # Of somebody with very many bindings, the keys of the single runs.
    run_keys: Any = None
    # Nothing wider than single runs.
    only_runs: bool = False


def reach_of(user: User, *, role: Role = Role.VIEWER) -> Reach:
    """Over what this person holds at least ``role``; for long tables."""
    found = of(user)
    if found is not None:
        return _listed([one for one in found if RANK[Role(one.role)] >= RANK[role]])
    held = Binding.objects.of(user).filter(role__in=at_least(role))
    runs = held.filter(scope=Scope.RUN, run_key__isnull=False).values("run_key")
    wide = _read(held.exclude(scope=Scope.RUN))
    if wide is not None:
        return replace(_listed(wide), run_keys=runs, only_runs=not wide)
    return Reach(
        everything=held.filter(scope=Scope.ORGANIZATION).exists(),
        projects=held.filter(scope=Scope.PROJECT).values("scope_id"),
        agents=held.filter(scope=Scope.AGENT).values("scope_id"),
        run_keys=runs,
    )


def _listed(found: Sequence[Holding]) -> Reach:
    ids: dict[str, list[UUID]] = {scope: [] for scope in Scope}
    for one in found:
        ids[one.scope].append(one.scope_id)
    return Reach(
        everything=bool(ids[Scope.ORGANIZATION]),
        projects=ids[Scope.PROJECT],
        agents=ids[Scope.AGENT],
        runs=ids[Scope.RUN],
    )


def _held(user: User) -> Sequence[Holding] | None:
    if not user.is_active:
        return []
    asked = {"organization_id": user.organization_id, "user_id": user.pk, "limit": _LISTED + 1}
    return _unless_very_many([Holding(**row) for row in sql.fetch(_SQL["held"], asked)])


def _read(held: BindingQuerySet) -> Sequence[Holding] | None:
    rows = held.values_list("role", "scope", "scope_id")[: _LISTED + 1]
    return _unless_very_many([Holding(*row) for row in rows])


def _unless_very_many(found: Sequence[Holding]) -> Sequence[Holding] | None:
    return found if len(found) <= _LISTED else None
