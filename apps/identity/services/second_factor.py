"""The second factor: codes of an authenticator app (TOTP, RFC 6238), and recovery codes for when it is
gone."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from textwrap import wrap
from typing import Final

import pyotp
from django.conf import settings
from django.db import transaction

from apps.core import clock, sealing
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.services import outbox
from apps.events.types import ActorRef, platform
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import RecoveryCode, SecondFactor, User
from apps.identity.services import sessions

_STEP_S: Final = 30
# One step to either side: clocks of phones are a few seconds off, people type slowly.
_TOLERANCE: Final = 1
_CODES: Final = 10
# 118 bits: so many that a plain keyed hash keeps them safe even from who has the key.
_CODE_LETTERS: Final = 24
# Without the letters and digits that people mix up.
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What an app needs to know: to be scanned, or to be typed."""

    uri: str
    secret: str


def is_on(user: User) -> bool:
    return SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).exists()


@transaction.atomic
def begin(*, by: Actor) -> Setup:
    """Make a new secret for the actor, which counts once it is confirmed with a code."""
    policy.require_fresh(by, "token.manage")
    user = _locked(by)
    if is_on(user):
        raise Conflict(reason="An authenticator app is set up already; remove it first.")
    secret = pyotp.random_base32()
    SecondFactor.objects.update_or_create(
        user=user, defaults={"sealed_secret": sealing.seal(secret), "confirmed_at": None}
    )
    _audit(by, "second_factor.begin")
    return _setup(user, secret)


def pending(user: User) -> Setup | None:
    """The setup that was begun and waits for its first code."""
    found = SecondFactor.objects.filter(user=user, confirmed_at=None).first()
    return _setup(user, sealing.unseal(found.sealed_secret)) if found else None


@transaction.atomic
def confirm(*, by: Actor, code: str) -> list[str]:
    """Turn it on with the app's first code; return the recovery codes, which are not shown again."""
    policy.require_fresh(by, "token.manage")
    user = _locked(by)
    factor = SecondFactor.objects.filter(user=user, confirmed_at=None).first()
    if factor is None:
        raise Conflict(reason="Begin the setup first.")
    if not _takes(by, factor, code):
        raise Invalid([{"field": "code", "rule": "is not the app's present code; check its clock"}])
    SecondFactor.objects.filter(pk=factor.pk).update(confirmed_at=clock.now())
    codes = _renew_codes(user)
    _audit(by, "second_factor.confirm")
    return codes


@transaction.atomic
def remove(*, by: Actor) -> None:
    """Turn it off. Removing what is not there is harmless. Raises ``Conflict`` where it is required."""
    policy.require_fresh(by, "token.manage")
    if settings.AOS_REQUIRE_SECOND_FACTOR:
        raise Conflict(reason="A second factor is required here. Ask an admin to reset yours.")
    user = _locked(by)
    removed, _ = SecondFactor.objects.filter(user=user).delete()
    RecoveryCode.objects.filter(user=user).delete()
    if removed:
        _audit(by, "second_factor.remove")


@transaction.atomic
def reset(*, by: Actor, user: User, reason: str = "") -> None:
    """Take somebody's second factor away, so that they can sign in with the password and set up a new
    app. For a person whose app and recovery codes are gone; their browsers are signed out.

    Raises ``Conflict`` when there is none, and for oneself: one's own is removed with ``remove``.
    """
    policy.require(by, "people.manage")
    if user.organization_id != by.user.organization_id:
        raise NotAllowed(action="changing people of another organization")
    policy.require_not_above(by, user)
    if user.pk == by.user.pk:
        raise Conflict(reason="Remove your own second factor on your Security page.")
    _take_away(by.ref, user, reason=reason)
    sessions.end_all(by=by, user=user)


@transaction.atomic
def reset_from_shell(*, user: User) -> None:
    """The same for a command: for the last owner, above whom nobody stands. Raises ``Conflict``."""
    by = platform("shell", organization_id=user.organization_id)
    _take_away(by, user)
    sessions.end_from_shell(by=by, user=user)


def _take_away(by: ActorRef, user: User, *, reason: str = "") -> None:
    removed, _ = SecondFactor.objects.filter(user=user).delete()
    RecoveryCode.objects.filter(user=user).delete()
    if not removed:
        raise Conflict(reason=f"{user.username} has no second factor.")
    outbox.audit(
        by,
        "second_factor.reset",
        resource_type="user",
        resource_id=user.pk,
        detail={"user": user.username} | ({"why": reason} if reason else {}),
    )


@transaction.atomic
def check(user: User, code: str) -> bool:
    """Whether the code is good now. A good one is used up: neither kind is taken twice."""
    by = Actor(user=user)
    _locked(by)
    typed = "".join(code.split()).replace("-", "").lower()
    factor = SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).first()
    if factor is None:
        return False
    if typed.isascii() and typed.isdigit() and len(typed) == 6:
        return _takes(by, factor, typed)
    used = RecoveryCode.objects.filter(user=user, code_hash=_hash(typed), used_at=None).update(
        used_at=clock.now()
    )
    if used:
        _audit(by, "second_factor.recover")
    return bool(used)


def codes_left(user: User) -> int:
    return RecoveryCode.objects.filter(user=user, used_at=None).count()


def _takes(by: Actor, factor: SecondFactor, code: str) -> bool:
    app = pyotp.TOTP(sealing.unseal(factor.sealed_secret), interval=_STEP_S)
    now = int(clock.now().timestamp()) // _STEP_S
    if not code.isascii():
        return False
    for step in range(now - _TOLERANCE, now + _TOLERANCE + 1):
        if step > factor.last_step and hmac.compare_digest(app.generate_otp(step), code):
            SecondFactor.objects.filter(pk=factor.pk).update(last_step=step)
            _move(by, factor)
            return True
    return False


def _move(by: Actor, factor: SecondFactor) -> None:
    """Bring the secret under the key of today, if it is still under one of yesterday."""
    if not sealing.is_stale(factor.sealed_secret):
        return
    sealed = sealing.seal(sealing.unseal(factor.sealed_secret))
    SecondFactor.objects.filter(pk=factor.pk).update(sealed_secret=sealed)
    _audit(by, "second_factor.reseal")


def _renew_codes(user: User) -> list[str]:
    RecoveryCode.objects.filter(user=user).delete()
    codes = [
        "".join(secrets.choice(_ALPHABET) for _ in range(_CODE_LETTERS)) for _ in range(_CODES)
    ]
    RecoveryCode.objects.bulk_create(
        RecoveryCode(user=user, code_hash=_hash(code)) for code in codes
    )
    return ["-".join(wrap(code, 4)) for code in codes]


def _hash(code: str) -> bytes:
    return hmac.digest(
        settings.AOS_TOKEN_PEPPER.encode(), b"recovery" + code.encode(), hashlib.sha256
    )


def _setup(user: User, secret: str) -> Setup:
    uri = pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name="AOS")
    return Setup(uri=uri, secret=secret)


def _locked(by: Actor) -> User:
    """The person's row, so that two codes typed at the same moment come one after the other."""
    return User.objects.select_for_update(no_key=True).get(pk=by.user.pk)


def _audit(by: Actor, action: str) -> None:
    outbox.audit(by.ref, action, resource_type="user", resource_id=by.user.pk)
