"""Organizations, the people in them, and the roles they are given."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.services import outbox
from apps.events.types import platform
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import Binding, Organization, User
from apps.identity.types import RANK, Role, Scope


@transaction.atomic
def found(*, slug: str, name: str, owner: str, email: str, password: str) -> User:
    """Create an organization with its first owner. The one act that nobody has to allow."""
    organization = Organization.objects.create(slug=slug, name=name)
    user = _create_user(organization, username=owner, email=email, password=password)
    _bind(user, role=Role.OWNER, scope=Scope.ORGANIZATION, scope_id=organization.pk)
    outbox.audit(
        platform("setup", organization_id=organization.pk),
        "organization.found",
        resource_type="organization",
        resource_id=organization.pk,
        detail={"owner": owner},
    )
    return user


@transaction.atomic
def add(
    *,
    by: Actor,
    username: str,
    email: str,
    password: str,
    first_name: str = "",
    last_name: str = "",
) -> User:
    """Add a person to the actor's organization. They may do nothing until a role is granted."""
    policy.require(by, "people.manage")
    user = _create_user(
        by.user.organization,
        username=username,
        email=email,
        password=password,
        first_name=first_name,
        last_name=last_name,
    )
    outbox.audit(by.ref, "user.add", resource_type="user", resource_id=user.pk)
    return user


@transaction.atomic
def grant(
    *, by: Actor, user: User, role: Role, project_id: UUID | None = None, reason: str = ""
) -> Binding:
    """Give a person a role over the organization, or over one project of it.

    Nobody grants a role above their own, nor lowers somebody above them, and an organization keeps
    at least one owner (``Conflict``).
    """
    policy.require(by, "people.manage")
    if user.organization_id != by.user.organization_id:
        raise NotAllowed(action="granting roles in another organization")
    # Two owners who lower each other at the same moment wait for one another here.
    Organization.objects.select_for_update(no_key=True).get(pk=user.organization_id)
    if max(RANK[role], _highest(user)) > _highest(by.user):
        raise NotAllowed(action=f"granting the role {role}")
    if project_id is None and role != Role.OWNER and _is_last_owner(user):
        raise Conflict(reason=f"{user.username} is the last owner; make somebody else owner first.")
    binding = _bind(
        user,
        role=role,
        scope=Scope.PROJECT if project_id else Scope.ORGANIZATION,
        scope_id=project_id or user.organization_id,
        reason=reason,
    )
    outbox.audit(
        by.ref,
        "binding.grant",
        resource_type="binding",
        resource_id=binding.pk,
        detail={"user": user.username, "role": role, "scope": binding.scope},
    )
    return binding


def _highest(user: User) -> int:
    roles = Binding.objects.of(user).filter(scope=Scope.ORGANIZATION).values_list("role", flat=True)
    return max((RANK[Role(role)] for role in roles), default=0)


def _is_last_owner(user: User) -> bool:
    owners = Binding.objects.filter(
        organization=user.organization_id,
        scope=Scope.ORGANIZATION,
        role=Role.OWNER,
        user__is_active=True,
    )
    return owners.filter(user=user).exists() and not owners.exclude(user=user).exists()


def _create_user(organization: Organization, *, password: str, **fields: str) -> User:
    user = User(organization=organization, **fields)
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid([{"field": "password", "rule": " ".join(error.messages)}]) from error
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict(reason=f"There is already a user {user.username!r}.") from error
    return user


def _bind(user: User, *, role: Role, scope: Scope, scope_id: UUID, reason: str = "") -> Binding:
    binding, _ = Binding.objects.update_or_create(
        user=user,
        department=None,
        scope=scope,
        scope_id=scope_id,
        defaults={"organization": user.organization, "role": role, "reason": reason},
    )
    return binding
