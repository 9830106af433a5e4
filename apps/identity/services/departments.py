"""Departments and who belongs to them. Whoever joins one gets its roles."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from apps.core import sql
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.services import changes, outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import Department, User
from apps.identity.services import bindings


@transaction.atomic
def create(*, by: Actor, name: str) -> Department:
    """Make a department of the actor's organization; raise ``Conflict`` when the name is taken."""
    policy.require(by, "people.manage")
    made = Department(organization=by.user.organization, name=_checked(name))
    _save(made, force_insert=True)
    _audit(by, "department.create", made, after=changes.of(made, "name"))
    return made


@transaction.atomic
def rename(*, by: Actor, department: Department, name: str) -> Department:
    _require_own(by, department)
    before = changes.of(Department.objects.get(pk=department.pk), "name")
    department.name = _checked(name)
    _save(department, update_fields=["name", "updated_at"])
    _audit(by, "department.rename", department, before=before, after=changes.of(department, "name"))
    return department


@transaction.atomic
def remove(*, by: Actor, department: Department) -> None:
    """Remove a department with its roles; its members keep their own."""
    _require_own(by, department)
    _require_not_above(by, department)
    members = list(department.members.values_list("username", flat=True))
    _audit(by, "department.remove", department, members=members)
    department.delete()


@transaction.atomic
def add_member(*, by: Actor, department: Department, user: User) -> None:
    """Let somebody share the department's roles. Adding a member again is harmless.

    Nobody adds to a department that holds a role above their own: they could add themselves.
    """
    _require_own(by, department)
    _require_not_above(by, department)
    if user.organization_id != department.organization_id:
        raise NotAllowed(action="adding members of another organization")
    if not department.members.filter(pk=user.pk).exists():
        if bindings.makes_owners(department):
            bindings.require_one_person_is_enough()
        department.members.add(user)
        _audit(by, "department.join", department, user=user.username)


@transaction.atomic
def remove_member(*, by: Actor, department: Department, user: User) -> None:
    """Take the department's roles from somebody. Removing who is no member is harmless."""
    _require_own(by, department)
    _require_not_above(by, department)
    if department.members.filter(pk=user.pk).exists():
        department.members.remove(user)
        _audit(by, "department.leave", department, user=user.username)


def _require_own(by: Actor, department: Department) -> None:
    policy.require(by, "people.manage")
    if department.organization_id != by.user.organization_id:
        raise NotAllowed(action="changing departments of another organization")


def _require_not_above(by: Actor, department: Department) -> None:
    if bindings.rank_of(department) > policy.standing(by.user):
        policy.refuse_above(by, "changing a department that holds a role above yours")


def _checked(name: str) -> str:
    if not name.strip() or len(name) > 120:
        raise Invalid([{"field": "name", "rule": "must be 1 to 120 characters"}])
    return name.strip()


def _save(department: Department, **how: object) -> None:
    try:
        with transaction.atomic():
            department.save(**how)  # type: ignore[arg-type]  # as Django's save takes them
    except IntegrityError as error:
        if sql.violated_constraint(error) == "identity_department_one_name_each":
            reason = f"There is already a department {department.name!r}."
            raise Conflict(reason=reason) from error
        raise


def _audit(
    by: Actor,
    action: str,
    department: Department,
    *,
    before: dict[str, object] | None = None,
    after: dict[str, object] | None = None,
    **detail: object,
) -> None:
    outbox.audit(
        by.ref,
        action,
        resource_type="department",
        resource_id=department.pk,
        detail={"department": department.name} | detail,
        before=before,
        after=after,
    )
