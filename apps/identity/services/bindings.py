"""Granting roles and taking them back.

Nobody grants a role above their own, nor takes one from somebody above them, and an organization that
has an owner keeps one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from apps.core import clock, sql
from apps.core.errors import Conflict, Invalid, NotAllowed, NotFound
from apps.events.services import changes, outbox
from apps.identity import places, policy
from apps.identity.actor import Actor
from apps.identity.errors import SecondPersonNeeded
from apps.identity.matrix import MATRIX
from apps.identity.models import Binding, BindingQuerySet, Department, Organization, User
from apps.identity.types import RANK, Place, Role, Scope, UserKind

Subject = User | Department
_FIELDS: Final = ("role", "expires_at", "reason")


@transaction.atomic
def grant(
    *,
    by: Actor,
    subject: Subject,
    role: Role,
    place: Place | None = None,
    expires_at: datetime | None = None,
    reason: str = "",
) -> Binding:
    """Give a person, a service account or a department a role over a place (``places.find``), by
    default over the organization.

    It replaces the role they hold there. Raises ``NotAllowed``, ``Invalid`` for an end that has passed,
    and ``Conflict`` when the organization would lose its last owner.
    """
    policy.require(by, "people.manage")
    if subject.organization_id != by.user.organization_id:
        raise NotAllowed(action="granting roles in another organization")
    if expires_at is not None and expires_at <= clock.now():
        raise Invalid([{"field": "expires_at", "rule": "must lie in the future"}])
    place = place or places.organization(by.user)
    with keeping_an_owner(subject.organization_id):
        held = _at(subject, place).first()
        _require_within_reach(by, subject, role=role, held=held)
        if role == Role.OWNER and place.scope == Scope.ORGANIZATION:
            require_one_person_is_enough()
        before = changes.of(held, *_FIELDS) if held else None
        binding = bind(
            subject, role=role, place=place, expires_at=expires_at, reason=reason, by=by.user
        )
    outbox.audit(
        by.ref,
        "binding.grant",
        resource_type="binding",
        resource_id=binding.pk,
        detail=_told(binding, place.name),
        before=before,
        after=changes.of(binding, *_FIELDS),
    )
    return binding


@transaction.atomic
def revoke(*, by: Actor, binding: Binding, reason: str = "") -> None:
    """Take a role back: it counts from the next request, and runs that needed it are cancelled."""
    policy.require(by, "people.manage")
    if binding.organization_id != by.user.organization_id:
        raise NotAllowed(action="taking roles in another organization")
    with keeping_an_owner(binding.organization_id):
        if RANK[Role(binding.role)] > policy.standing(by.user):
            policy.refuse_above(by, "taking a role above yours")
        if binding.user is not None:
            policy.require_not_above(by, binding.user)
        _audit_revoke(by, binding, why=reason)
        Binding.objects.filter(pk=binding.pk).delete()


def clear(*, by: Actor, scope: Scope, scope_id: UUID, why: str) -> int:
    """Take all roles over a place that goes, for somebody who may delete it; return how many."""
    sql.require_transaction("bindings.clear")
    rows = over(by.user.organization_id, scope, scope_id).select_related("user", "department")
    held = list(rows.select_for_update(of=("self",)).order_by("pk"))
    for binding in held:
        _audit_revoke(by, binding, why=why)
    Binding.objects.filter(pk__in=[binding.pk for binding in held]).delete()
    return len(held)


def over(organization_id: UUID, scope: Scope, scope_id: UUID) -> BindingQuerySet:
    """The roles over exactly this place, not those that reach it from a wider one."""
    return Binding.objects.filter(organization_id=organization_id, scope=scope, scope_id=scope_id)


@contextmanager
def keeping_an_owner(organization_id: UUID) -> Iterator[None]:
    """Refuse a change that leaves an organization without an owner it had.

    An owner is an active person who holds the role directly and without an end. Two who would remove
    each other at the same moment wait for one another here.
    """
    with transaction.atomic():
        organization = Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
        had_one = _owners(organization).exists()
        yield
        if had_one and not _owners(organization).exists():
            raise Conflict(
                reason=f"{organization} would lose its last owner. Make another person owner first, "
                "without an end."
            )


def bind(
    subject: Subject,
    *,
    role: Role,
    place: Place,
    expires_at: datetime | None = None,
    reason: str = "",
    by: User | None = None,
    group: str = "",
) -> Binding:
    """Store a binding, replacing the one there. The caller has asked whether it may, and records it.

    Raises ``NotFound`` for a place that is deleted at this moment.
    """
    try:
        with transaction.atomic():
            binding, _ = Binding.objects.update_or_create(
                user=subject if isinstance(subject, User) else None,
                department=subject if isinstance(subject, Department) else None,
                scope=place.scope,
                scope_id=place.id,
                defaults={
                    "organization_id": subject.organization_id,
                    "role": role,
                    "expires_at": expires_at,
                    "reason": reason,
                    "granted_by": by,
                    "group": group,
                },
            )
    except IntegrityError as error:
        if sql.violated_constraint(error) == "agents_agent_not_removed":
            raise NotFound(what=place.scope, ref=place.name) from error
        raise
    return binding


def require_one_person_is_enough() -> None:
    """Raise ``SecondPersonNeeded`` where making an owner takes two."""
    if MATRIX["owner.grant"].two_person and settings.AOS_TWO_PERSON:
        raise SecondPersonNeeded


def makes_owners(department: Department) -> bool:
    """Whether whoever joins becomes an owner of the organization."""
    held = Binding.objects.filter(department=department)
    return held.filter(scope=Scope.ORGANIZATION, role=Role.OWNER).exists()


def makes_owner(user: User) -> bool:
    """Whether whoever gets in as this person is an owner of the organization."""
    theirs = Q(user=user) | Q(department__in=user.departments.all())
    held = Binding.objects.filter(theirs, scope=Scope.ORGANIZATION, role=Role.OWNER)
    return held.exists()


def rank_of(department: Department) -> int:
    """How far the highest role of a department reaches, wherever it holds it."""
    roles = Binding.objects.filter(department=department).values_list("role", flat=True)
    return max((RANK[Role(role)] for role in roles), default=0)


def _require_within_reach(by: Actor, subject: Subject, *, role: Role, held: Binding | None) -> None:
    mine = policy.standing(by.user)
    if RANK[role] > mine:
        policy.refuse_above(by, f"granting the role {role}")
    if isinstance(subject, User):
        policy.require_not_above(by, subject)
    if held is not None and RANK[Role(held.role)] > mine:
        policy.refuse_above(by, "changing a role above yours")


def _at(subject: Subject, place: Place) -> BindingQuerySet:
    holder = Q(user=subject) if isinstance(subject, User) else Q(department=subject)
    return Binding.objects.filter(holder, scope=place.scope, scope_id=place.id)


def _owners(organization: Organization) -> BindingQuerySet:
    return Binding.objects.filter(
        organization=organization,
        scope=Scope.ORGANIZATION,
        role=Role.OWNER,
        expires_at=None,
        user__is_active=True,
        user__kind=UserKind.PERSON,
    )


def _audit_revoke(by: Actor, binding: Binding, *, why: str) -> None:
    outbox.audit(
        by.ref,
        "binding.revoke",
        resource_type="binding",
        resource_id=binding.pk,
        detail=_told(binding, str(binding.scope_id)) | ({"why": why} if why else {}),
        before=changes.of(binding, *_FIELDS),
    )


def _told(binding: Binding, place: str) -> dict[str, object]:
    holder = "department" if binding.department_id else "user"
    return {
        holder: str(binding.department or binding.user),
        "role": binding.role,
        "scope": binding.scope,
        "place": place,
    }
