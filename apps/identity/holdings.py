"""What a person holds, read at once: for the many questions of one request, and for long lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from apps.core import memory, sql, tenancy
from apps.identity.models import Binding, BindingQuerySet, User
from apps.identity.types import Role, Scope, at_least

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
    found = _first(user)
    return found if len(found) <= _LISTED else None


def _first(user: User) -> Sequence[Holding]:
    """One more of them than may be listed, those over single runs last."""
    # Who sees nobody's rows yet finds no bindings either.
    key = ("holdings", tenancy.viewer(), user.pk, user.is_active)
    return memory.recall(key, lambda: _held(user))


def _held(user: User) -> Sequence[Holding]:
    if not user.is_active:
        return []
    asked = {"organization_id": user.organization_id, "user_id": user.pk, "limit": _LISTED + 1}
    return [Holding(**row) for row in sql.fetch(_SQL["held"], asked)]


def remembered(user: User) -> Sequence[Holding] | None:
    """The same where it will be of use again; ``None`` outside of web requests."""
    return of(user) if memory.is_kept() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Over what somebody holds a role, as lists of ids: of many single runs as a subquery.

    From the ids PostgreSQL tells whether to walk the newest rows until a page is full, or to fetch a few
    by index.
    """

    everything: bool
    projects: Sequence[UUID]
    agents: Sequence[UUID]
    runs: Sequence[UUID]
    # Of somebody with very many bindings, the keys of the single runs instead.
    run_keys: QuerySet[Binding, Any] | None = None


def reach_of(user: User, *, role: Role = Role.VIEWER) -> Reach:
    """Over what this person holds at least ``role``; for long tables."""
    found = _first(user)
    if len(found) <= _LISTED:
        return _listed(found, role)
    held = Binding.objects.of(user)
    # The last is a single run: all that is wider is among those before.
    whole = found if found[-1].scope == Scope.RUN else _read(held.exclude(scope=Scope.RUN))
    single = held.filter(role__in=at_least(role), scope=Scope.RUN, run_key__isnull=False)
    return replace(_listed(whole, role), runs=(), run_keys=single.values("run_key"))


def _read(held: BindingQuerySet) -> Sequence[Holding]:
    return [Holding(*row) for row in held.values_list("role", "scope", "scope_id")]


def _listed(found: Sequence[Holding], role: Role) -> Reach:
    enough = at_least(role)
    ids: dict[str, list[UUID]] = {scope: [] for scope in Scope}
    for one in found:
        if one.role in enough:
            ids[one.scope].append(one.scope_id)
    return Reach(
        everything=bool(ids[Scope.ORGANIZATION]),
        projects=ids[Scope.PROJECT],
        agents=ids[Scope.AGENT],
        runs=ids[Scope.RUN],
    )
