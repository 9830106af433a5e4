"""Signing in and out: who is signed in where, and ending it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from importlib import import_module
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from apps.core import clock
from apps.core.errors import NotAllowed
from apps.events.services import outbox
from apps.events.types import ActorRef
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import SignIn, User

# Writing "last seen" on every request would make each read a write.
_SEEN_GRAIN: Final = timedelta(minutes=1)


@transaction.atomic
def begin(*, by: Actor, session_key: str, address: str | None, agent: str, how: str) -> SignIn:
    """Record that a person signed in. ``how`` names what proved it: password, code, provider."""
    SignIn.objects.filter(user=by.user).over().delete()
    made = SignIn.objects.create(
        user=by.user, session_key=session_key, address=address, agent=agent[:200]
    )
    _audit(by.ref, "session.begin", made, how=how)
    return made


@transaction.atomic
def end(*, by: Actor, session_key: str) -> None:
    """Record that a person signed out of the browser they are in."""
    for found in SignIn.objects.filter(user=by.user, session_key=session_key):
        _audit(by.ref, "session.end", found)
        found.delete()


@transaction.atomic
def revoke(*, by: Actor, sign_ins: Iterable[SignIn]) -> int:
    """Sign browsers of the actor out; each counts from its next request on."""
    ended = 0
    for found in sign_ins:
        if found.user_id != by.user.pk:
            raise NotAllowed(action="ending somebody else's sessions")
        _revoke(by, found)
        ended += 1
    return ended


@transaction.atomic
def end_all(*, by: Actor, user: User) -> int:
    """Sign a person of the organization out everywhere."""
    policy.require(by, "people.manage")
    if user.organization_id != by.user.organization_id:
        raise NotAllowed(action="ending sessions in another organization")
    found = list(SignIn.objects.filter(user=user))
    for each in found:
        _revoke(by, each)
    return len(found)


def end_from_shell(*, by: ActorRef, user: User) -> None:
    """Sign somebody out everywhere, for a command; part of its transaction."""
    for found in SignIn.objects.filter(user=user):
        _close(by, found)


def moved(user: User, *, before: str, after: str) -> None:
    """A browser's session got a new key: it is still the same browser."""
    SignIn.objects.filter(user=user, session_key=before).update(session_key=after)


def seen(user: User, session_key: str) -> None:
    """Note that a browser was used."""
    now = clock.now()
    stale = SignIn.objects.filter(user=user, session_key=session_key, seen_at__lt=now - _SEEN_GRAIN)
    stale.update(seen_at=now)


def _revoke(by: Actor, found: SignIn) -> None:
    _close(by.ref, found)


def _close(by: ActorRef, found: SignIn) -> None:
    engine: Any = import_module(settings.SESSION_ENGINE)
    engine.SessionStore(found.session_key).delete()
    _audit(by, "session.revoke", found)
    found.delete()


def _audit(by: ActorRef, action: str, sign_in: SignIn, **detail: object) -> None:
    outbox.audit(
        by,
        action,
        resource_type="session",
        resource_id=sign_in.pk,
        detail={"user": sign_in.user.username, "address": sign_in.address, **detail},
    )
