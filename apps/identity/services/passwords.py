"""Changing a password, and keeping its hash fresh."""

from __future__ import annotations

import secrets
from textwrap import wrap
from typing import Final

from django.conf import settings
from django.contrib.auth.hashers import get_hasher, identify_hasher
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.services import outbox
from apps.events.types import platform
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import SignIn, User
from apps.identity.services import bindings, sessions

# Without the letters and digits that people mix up; 99 bits.
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_LETTERS: Final = 20


@transaction.atomic
def change(*, by: Actor, old: str, new: str, keep_session: str | None) -> None:
    """Set the actor's own password and sign out their other browsers."""
    user = User.objects.select_for_update(no_key=True).get(pk=by.user.pk)
    if not user.check_password(old):
        raise Invalid([{"field": "old", "rule": "is not your password"}])
    _require_good(new, user)
    _store(user, new)
    outbox.audit(by.ref, "user.password", resource_type="user", resource_id=user.pk)
    others = SignIn.objects.filter(user=user).exclude(session_key=keep_session)
    sessions.revoke(by=by, sign_ins=others)


@transaction.atomic
def give(*, by: Actor, user: User, reason: str = "") -> str:
    """Make a password for somebody who has forgotten theirs, and sign them out everywhere.

    It is returned once, is good for choosing one's own and nothing else, and not for long. A second
    factor stays as it is. Raises ``Conflict`` for oneself and for who has no password, and
    ``SecondPersonNeeded`` for an owner where owners take two people: who knows it could be both.
    """
    policy.require(by, "people.manage")
    if user.organization_id != by.user.organization_id:
        raise NotAllowed(action="changing people of another organization")
    policy.require_not_above(by, user)
    if user.pk == by.user.pk:
        raise Conflict(reason="Change your own password on your Security page.")
    if bindings.makes_owner(user):
        bindings.require_one_person_is_enough()
    if not user.has_usable_password():
        raise Conflict(reason=f"{user.username} signs in without a password.")
    made = "-".join(wrap("".join(secrets.choice(_ALPHABET) for _ in range(_LETTERS)), 4))
    user.first_password_until = clock.now() + settings.AOS_FIRST_PASSWORD
    _store(user, made)
    outbox.audit(
        by.ref,
        "user.password_reset",
        resource_type="user",
        resource_id=user.pk,
        detail={"user": user.username} | ({"why": reason} if reason else {}),
    )
    sessions.end_all(by=by, user=user)
    return made


@transaction.atomic
def choose(*, by: Actor, new: str) -> None:
    """Exchange a first password for one's own. Raises ``Invalid``, also for the same one again."""
    user = User.objects.select_for_update(no_key=True).get(pk=by.user.pk)
    if user.check_password(new):
        raise Invalid([{"field": "new", "rule": "is the one you were given; choose your own"}])
    _require_good(new, user)
    user.first_password_until = None
    _store(user, new)
    outbox.audit(by.ref, "user.password", resource_type="user", resource_id=user.pk)


@transaction.atomic
def reset(*, user: User, new: str) -> None:
    """Set somebody's password from the shell, and sign them out everywhere. Raises ``Invalid``.

    For who keeps the platform running; whoever reaches this needs nobody's leave.
    """
    if user.is_service_account:
        raise Invalid([{"field": "user", "rule": "is a service account, which has no password"}])
    _require_good(new, user)
    user.first_password_until = None
    _store(user, new)
    by = platform("shell", organization_id=user.organization_id)
    outbox.audit(
        by,
        "user.password_reset",
        resource_type="user",
        resource_id=user.pk,
        detail={"user": user.username},
    )
    sessions.end_from_shell(by=by, user=user)


@transaction.atomic
def refresh(user: User, raw: str) -> None:
    """Hash a password anew when Django hashes stronger than when it was stored."""
    preferred, used = get_hasher(), identify_hasher(user.password)
    if used.algorithm != preferred.algorithm or preferred.must_update(user.password):
        _store(user, raw)
        outbox.audit(
            Actor(user=user).ref, "user.password_rehash", resource_type="user", resource_id=user.pk
        )


def _require_good(new: str, user: User) -> None:
    try:
        validate_password(new, user)
    except ValidationError as error:
        raise Invalid([{"field": "new", "rule": " ".join(error.messages)}]) from error


def _store(user: User, raw: str) -> None:
    user.set_password(raw)
    user.save(update_fields=["password", "first_password_until"])
