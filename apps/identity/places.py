"""Places that bindings can hold over. The rows live in apps above this one, which register here how
a person names one and sees it.
"""

from __future__ import annotations

from collections.abc import Callable

from apps.core.errors import Invalid, NotFound
from apps.identity.models import Organization, User
from apps.identity.types import Place, Scope

Finder = Callable[[User, str], Place]
_finders: dict[Scope, Finder] = {}


def register(scope: Scope, finder: Finder) -> None:
    """Say how a place is found. The finder raises ``NotFound`` for what the person cannot see."""
    _finders[scope] = finder


def find(user: User, scope: str, ref: str) -> Place:
    """The place that the person calls this, by id or slug; raise ``NotFound`` or ``Invalid``."""
    if scope not in Scope.values:
        rule = f"must be one of {', '.join(Scope.values)}"
        raise Invalid([{"field": "scope", "rule": rule}])
    if scope == Scope.ORGANIZATION:
        return _own_organization(user, ref)
    return _finders[Scope(scope)](user, ref)


def organization(user: User) -> Place:
    """The person's organization."""
    return _place_of(user.organization)


def _own_organization(user: User, ref: str) -> Place:
    if ref not in {"", str(user.organization_id), user.organization.slug}:
        raise NotFound(what="organization", ref=ref)
    return organization(user)


def _place_of(row: Organization) -> Place:
    return Place(scope=Scope.ORGANIZATION, id=row.pk, name=row.name)
