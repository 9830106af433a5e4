"""People who sign in at an OpenID provider: who of ours they are, and what their groups give them.

An account of ours is joined to the provider's by the provider's own name for the person, never by an
email address or user name that happens to be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from apps.core.errors import Conflict, Invalid
from apps.events.services import changes, outbox
from apps.events.types import ActorRef, platform
from apps.identity import denials, places, policy
from apps.identity.actor import Actor
from apps.identity.errors import ProviderRefused
from apps.identity.models import Binding, Organization, ProviderAccount, User
from apps.identity.oidc import Identity
from apps.identity.services import bindings, people
from apps.identity.types import RANK, Place, Role

FindProject = Callable[[UUID, str], Place | None]
_PART: Final = "identity provider"
_FIELDS: Final = ("role", "group")


@transaction.atomic
def enter(identity: Identity, *, find_project: FindProject) -> User:
    """The person behind an identity, with the roles that their groups give them now.

    Raises ``ProviderRefused``; then nothing was changed.
    """
    organization = _organization()
    # Two first sign-ins of one person come one after the other.
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    account = _account(identity)
    if account is None:
        user = _newcomer(identity, organization)
    else:
        user = account.user
        _require_welcome(user, organization)
    _follow_groups(user, identity.groups, find_project)
    return user


def known(identity: Identity) -> User | None:
    """The person this identity belongs to here, if it belongs to one."""
    account = _account(identity)
    return account.user if account else None


@transaction.atomic
def connect(*, by: Actor, identity: Identity) -> None:
    """Join the actor's account to the provider's: from now on they may sign in there.

    Raises ``Conflict`` when either is joined already.
    """
    policy.require_fresh(by, "token.manage")
    if by.user.organization_id != _organization().pk:
        raise ProviderRefused(reason="People of your organization do not sign in there.")
    User.objects.select_for_update(no_key=True).get(pk=by.user.pk)
    taken = ProviderAccount.objects.filter(
        Q(subject=identity.subject) | Q(user=by.user), issuer=identity.issuer
    )
    if taken.exists():
        raise Conflict(reason="Your account, or the one there, is connected already.")
    _join(by.ref, by.user, identity)


@transaction.atomic
def disconnect(*, by: Actor) -> None:
    """Part the actor's account from the provider's. Roles that came from there go with it."""
    policy.require_fresh(by, "token.manage")
    user = User.objects.select_for_update(no_key=True).get(pk=by.user.pk)
    if not user.has_usable_password():
        raise Conflict(
            reason="You have no password here; without the provider you could not sign in."
        )
    for account in ProviderAccount.objects.filter(user=user):
        outbox.audit(
            by.ref,
            "provider.disconnect",
            resource_type="user",
            resource_id=user.pk,
            detail={"user": user.username, "issuer": account.issuer},
        )
        account.delete()
    _take_back(by.ref, Binding.objects.filter(user=user).exclude(group=""))


def is_connected(user: User) -> bool:
    return ProviderAccount.objects.filter(user=user, issuer=settings.AOS_OIDC_ISSUER).exists()


def _organization() -> Organization:
    found = Organization.objects.filter(slug=settings.AOS_OIDC_ORGANIZATION).first()
    if found is None:
        raise ProviderRefused(
            reason="AOS_OIDC_ORGANIZATION names no organization. Tell your administrator."
        )
    return found


def _account(identity: Identity) -> ProviderAccount | None:
    accounts = ProviderAccount.objects.select_related("user__organization")
    return accounts.filter(issuer=identity.issuer, subject=identity.subject).first()


def _require_welcome(user: User, organization: Organization) -> None:
    if not user.is_active or user.is_service_account:
        denials.note(Actor(user=user).ref, "session.begin", reason="the account is disabled")
        raise ProviderRefused(reason="Your account here is disabled. Ask an administrator.")
    if user.organization_id != organization.pk:
        denials.note(Actor(user=user).ref, "session.begin", reason="not of the organization")
        raise ProviderRefused(reason="People of your organization do not sign in there.")


def _newcomer(identity: Identity, organization: Organization) -> User:
    """Somebody we have not seen. Whoever has their name here already keeps it."""
    by = platform(_PART, organization_id=organization.pk)
    same = Q(username__iexact=identity.username)
    if identity.email:
        same |= Q(email__iexact=identity.email)
    if User.objects.filter(same).exists():
        denials.note(by, "session.begin", reason="an account of that name is here already")
        raise ProviderRefused(
            reason="There is an account of that name or address here already. If it is yours, sign in "
            "with its password and connect the two under Security."
        )
    if not settings.AOS_OIDC_CREATE_PEOPLE:
        denials.note(by, "session.begin", reason="nobody here is known by that identity")
        raise ProviderRefused(reason="Nobody knows you here yet. Ask an administrator to add you.")
    try:
        user = people.add_from_provider(
            by=by,
            organization=organization,
            username=identity.username,
            email=identity.email,
            name=identity.name,
        )
    except Invalid as error:
        raise ProviderRefused(
            reason=f"The identity provider gives you a name that cannot be used here: {error}"
        ) from error
    _join(by, user, identity)
    return user


def _join(by: ActorRef, user: User, identity: Identity) -> None:
    ProviderAccount.objects.create(user=user, issuer=identity.issuer, subject=identity.subject)
    outbox.audit(
        by,
        "provider.connect",
        resource_type="user",
        resource_id=user.pk,
        detail={"user": user.username, "issuer": identity.issuer},
    )


# --- groups --------------------------------------------------------------------------------------


def _follow_groups(user: User, groups: frozenset[str], find_project: FindProject) -> None:
    """Make the roles that came from groups those that the groups give now.

    What people granted stands: a role over the same place that somebody gave by hand is left alone.
    """
    by = platform(_PART, organization_id=user.organization_id)
    wanted = _wanted(user, groups, find_project)
    mine = {(held.scope, held.scope_id): held for held in Binding.objects.filter(user=user)}
    gone = [held.pk for at, held in mine.items() if held.group and at not in wanted]
    _take_back(by, Binding.objects.filter(pk__in=gone))
    for at, (place, role, group) in wanted.items():
        held = mine.get(at)
        if held and (not held.group or (held.role, held.group) == (role, group)):
            continue
        before = changes.of(held, *_FIELDS) if held else None
        binding = bindings.bind(
            user, role=role, place=place, group=group, reason=f"group {group}"[:200]
        )
        outbox.audit(
            by,
            "binding.grant",
            resource_type="binding",
            resource_id=binding.pk,
            detail=_told(binding, place.name),
            before=before,
            after=changes.of(binding, *_FIELDS),
        )


def _wanted(
    user: User, groups: frozenset[str], find_project: FindProject
) -> Mapping[tuple[str, UUID], tuple[Place, Role, str]]:
    """The highest role that the groups give over each place."""
    found: dict[tuple[str, UUID], tuple[Place, Role, str]] = {}
    for group in sorted(groups & set(settings.AOS_OIDC_ROLES)):
        name, _, slug = settings.AOS_OIDC_ROLES[group].partition("@")
        role = Role(name)
        place = find_project(user.organization_id, slug) if slug else places.organization(user)
        if place is None:
            continue
        at = (str(place.scope), place.id)
        if at not in found or RANK[role] > RANK[found[at][1]]:
            found[at] = (place, role, group[:200])
    return found


def _take_back(by: ActorRef, held: Iterable[Binding]) -> None:
    for binding in held:
        outbox.audit(
            by,
            "binding.revoke",
            resource_type="binding",
            resource_id=binding.pk,
            detail=_told(binding, str(binding.scope_id)),
            before=changes.of(binding, *_FIELDS),
        )
        binding.delete()


def _told(binding: Binding, place: str) -> dict[str, object]:
    return {
        "user": str(binding.user),
        "role": binding.role,
        "scope": binding.scope,
        "place": place,
        "group": binding.group,
    }
