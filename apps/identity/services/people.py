"""Organizations, the people in them, and service accounts."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from apps.core import clock, sql
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.services import changes, outbox
from apps.events.types import ActorRef, platform
from apps.identity import places, policy
from apps.identity.actor import Actor
from apps.identity.models import Organization, User
from apps.identity.services import bindings, sessions
from apps.identity.types import Role, UserKind

_EDITABLE: Final = ("username", "email", "first_name", "last_name")


@transaction.atomic
def found(
    *,
    slug: str,
    name: str,
    owner: str,
    email: str,
    password: str,
    first_name: str = "",
    last_name: str = "",
) -> User:
    """Create an organization with its first owner. The one act that nobody has to allow."""
    organization = Organization.objects.create(slug=slug, name=name)
    user = _create(
        User(
            organization=organization,
            username=owner,
            email=email,
            first_name=first_name,
            last_name=last_name,
        ),
        password,
    )
    bindings.bind(user, role=Role.OWNER, place=places.organization(user))
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
    """Add a person to the actor's organization. They may do nothing until a role is granted, and
    choose a password of their own when they first sign in.

    Raises ``Invalid`` naming the field and rule, ``Conflict`` when the name is taken.
    """
    policy.require(by, "people.manage")
    user = User(
        organization=by.user.organization,
        username=username,
        email=email,
        first_name=first_name,
        last_name=last_name,
        first_password_until=clock.now() + settings.AOS_FIRST_PASSWORD,
    )
    _create(user, password)
    _audit(by, "user.add", user, after=changes.of(user, *_EDITABLE))
    return user


def add_from_provider(
    *, by: ActorRef, organization: Organization, username: str, email: str, name: str
) -> User:
    """Add a person whom an OpenID provider knows; they have no password here. For ``provider``."""
    first_name, _, last_name = name.strip().partition(" ")
    user = User(
        organization=organization,
        username=username,
        email=email,
        first_name=first_name[:150],
        last_name=last_name.strip()[:150],
    )
    _create(user, None)
    outbox.audit(
        by,
        "user.add",
        resource_type="user",
        resource_id=user.pk,
        detail={"user": user.username},
        after=changes.of(user, *_EDITABLE),
    )
    return user


@transaction.atomic
def add_service_account(*, by: Actor, username: str, name: str = "") -> User:
    """Add a service account: roles and tokens like a person's, and no way to sign in."""
    policy.require(by, "people.manage")
    account = User(
        organization=by.user.organization,
        username=username,
        first_name=name,
        kind=UserKind.SERVICE,
    )
    _create(account, None)
    _audit(by, "service_account.add", account, after=changes.of(account, "username", "first_name"))
    return account


@transaction.atomic
def edit(*, by: Actor, user: User, **fields: str) -> User:
    """Change user name, email address or names of somebody who does not stand above the actor."""
    _require_reach(by, user)
    if unknown := set(fields) - set(_EDITABLE):
        raise Invalid([{"field": name, "rule": "cannot be changed"} for name in sorted(unknown)])
    stored = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    before = changes.of(stored, *fields)
    for name, value in fields.items():
        setattr(user, name, value)
    _check(user)
    _save(user, update_fields=list(fields))
    _audit(by, "user.change", user, before=before, after=changes.of(user, *fields))
    return user


@transaction.atomic
def deactivate(*, by: Actor, user: User, reason: str = "") -> None:
    """Shut somebody out: browsers, tokens, streams; what they still run is cancelled.

    Nothing is deleted, and ``reactivate`` undoes it but for the sessions and runs. Raises ``Conflict``
    for oneself and for the last owner.
    """
    _require_reach(by, user)
    if user.pk == by.user.pk:
        raise Conflict(reason="You cannot disable yourself.")
    with bindings.keeping_an_owner(user.organization_id):
        if User.objects.filter(pk=user.pk, is_active=True).update(is_active=False):
            _audit(by, "user.deactivate", user, why=reason)
            sessions.end_all(by=by, user=user)
    user.is_active = False


@transaction.atomic
def reactivate(*, by: Actor, user: User) -> None:
    """Let somebody in again, with the roles and tokens that are left.

    Raises ``SecondPersonNeeded`` where that would make an owner and owners take two people: take that
    role from them first, and propose them afterwards.
    """
    _require_reach(by, user)
    if not user.is_active and bindings.makes_owner(user):
        bindings.require_one_person_is_enough()
    if User.objects.filter(pk=user.pk, is_active=False).update(is_active=True):
        _audit(by, "user.reactivate", user)
    user.is_active = True


def _require_reach(by: Actor, user: User) -> None:
    policy.require(by, "people.manage")
    if user.organization_id != by.user.organization_id:
        raise NotAllowed(action="changing people of another organization")
    policy.require_not_above(by, user)


def _create(user: User, password: str | None) -> User:
    """Store a new person with a password, or an account without any."""
    _check(user)
    if password is None:
        user.set_unusable_password()
    else:
        try:
            validate_password(password, user)
        except ValidationError as error:
            rule = " ".join(error.messages)
            raise Invalid([{"field": "password", "rule": rule}]) from error
        user.set_password(password)
    _save(user, force_insert=True)
    return user


def _check(user: User) -> None:
    try:
        user.clean_fields(exclude=["password", "organization", "last_login"])
    except ValidationError as error:
        raise Invalid(
            [
                {"field": field, "rule": " ".join(messages)}
                for field, messages in error.message_dict.items()
            ]
        ) from error


def _save(user: User, **how: Any) -> None:
    try:
        with transaction.atomic():
            user.save(**how)
    except IntegrityError as error:
        if sql.violated_constraint(error) == "identity_user_username_key":
            raise Conflict(reason=f"There is already a user {user.username!r}.") from error
        raise


def _audit(
    by: Actor,
    action: str,
    user: User,
    *,
    before: dict[str, object] | None = None,
    after: dict[str, object] | None = None,
    **detail: object,
) -> None:
    outbox.audit(
        by.ref,
        action,
        resource_type="user",
        resource_id=user.pk,
        detail={"user": user.username} | {name: told for name, told in detail.items() if told},
        before=before,
        after=after,
    )
