"""Who is in the organization, with the roles they hold and when they were last seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest

from apps.core import clock
from apps.hub import subjects
from apps.hub.subjects import Subject
from apps.identity.models import ApiToken, Binding, Department, SecondFactor, SignIn, User
from apps.identity.types import RANK, Role, Scope

SIZE: Final = 50
_EVERYTHING: Final = Subject(name="the whole organization")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A role somebody holds, told: where, and through which department if through one."""

    binding: Binding
    place: Subject
    is_over: bool

    @property
    def is_everywhere(self) -> bool:
        return self.binding.scope == Scope.ORGANIZATION


def people(user: User, *, query: str = "") -> QuerySet[User]:
    """The people one may see, by user name, with ``last_seen`` and ``has_second_factor``."""
    confirmed = SecondFactor.objects.filter(user=OuterRef("pk"), confirmed_at__isnull=False)
    seen = SignIn.objects.filter(user=OuterRef("pk")).order_by("-seen_at").values("seen_at")[:1]
    found = User.objects.visible_to(user).people().order_by("username")
    if query:
        found = found.filter(
            Q(username__icontains=query)
            | Q(first_name__icontains=query)
            | Q(last_name__icontains=query)
            | Q(email__icontains=query)
        )
    # GREATEST takes what is there: who signed out everywhere was seen at the last sign-in.
    return found.annotate(
        has_second_factor=Exists(confirmed), last_seen=Greatest(Subquery(seen), "last_login")
    )


def service_accounts(user: User) -> QuerySet[User]:
    """The service accounts one may see, with ``last_seen`` and how many tokens can be used."""
    usable = Q(api_tokens__revoked_at=None, api_tokens__expires_at__gt=clock.now())
    return (
        User.objects.visible_to(user)
        .service_accounts()
        .order_by("username")
        .annotate(
            last_seen=Max("api_tokens__last_used_at"),
            tokens=Count("api_tokens", filter=usable),
        )
    )


def departments(user: User) -> QuerySet[Department]:
    return Department.objects.visible_to(user).order_by("name").annotate(size=Count("members"))


def held_by(users: Collection[User], *, to: User) -> dict[UUID, list[Held]]:
    """The roles of each, highest first, those of their departments included."""
    sharing: dict[UUID, list[UUID]] = defaultdict(list)
    joined = User.departments.through.objects.filter(user__in=users)
    for department_id, user_id in joined.values_list("department_id", "user_id"):
        sharing[department_id].append(user_id)
    found: dict[UUID, list[Held]] = defaultdict(list)
    theirs = Q(user__in=users) | Q(department__in=list(sharing))
    for held in _of(Binding.objects.visible_to(to).filter(theirs), to=to):
        row = held.binding
        members = sharing[row.department_id] if row.department_id else []
        for holder in filter(None, [row.user_id, *members]):
            found[holder].append(held)
    return found


def of_department(department: Department, *, to: User) -> list[Held]:
    return _of(Binding.objects.visible_to(to).filter(department=department), to=to)


def _of(bindings: QuerySet[Binding], *, to: User) -> list[Held]:
    return told(list(bindings.select_related("department", "user", "granted_by")), to=to)


def told(rows: Sequence[Binding], *, to: User) -> list[Held]:
    """Bindings with the names of their places, highest first, those that have ended last."""
    names = subjects.find(((row.scope, str(row.scope_id)) for row in rows), to=to)
    now = clock.now()
    found = [
        Held(
            binding=row,
            place=_place(row, names),
            is_over=row.expires_at is not None and row.expires_at <= now,
        )
        for row in rows
    ]
    return sorted(found, key=_order)


def _place(row: Binding, names: dict[subjects.Key, Subject]) -> Subject:
    if row.scope == Scope.ORGANIZATION:
        return _EVERYTHING
    return names.get((row.scope, str(row.scope_id)), Subject(name="one you cannot see"))


def _order(held: Held) -> tuple[bool, int, str]:
    return held.is_over, -RANK[Role(held.binding.role)], held.place.name


def tokens_of(user: User, *, to: User) -> Iterable[ApiToken]:
    return ApiToken.objects.filter(user=user, user__organization=to.organization_id).order_by(
        "-created_at"
    )
