"""API tokens: issued once, verified on every request, revoked at once.

``aos_pat_<id>_<secret>_<crc>``: the id finds the row, the secret is compared as HMAC-SHA256 under a
pepper that is not in the database, and the checksum lets scanners and typing mistakes be told from
real tokens without asking the database.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from apps.core import clock, tenancy
from apps.core.errors import Invalid, NotAllowed
from apps.events.services import outbox
from apps.identity import allowed, denials, policy
from apps.identity.actor import Actor
from apps.identity.errors import ScopeMissing, TokenInvalid
from apps.identity.matrix import SCOPES, STEP_UP_SCOPES
from apps.identity.models import ApiToken, User

PREFIX: Final = "aos_pat_"
LONGEST: Final = timedelta(days=365)
_ALPHABET: Final = string.ascii_letters + string.digits
_BASE36: Final = string.digits + string.ascii_lowercase
# Writing "last used" on every request would make each read a write.
_USE_GRAIN: Final = timedelta(minutes=1)


def _hash(secret: str) -> bytes:
    return hmac.digest(settings.AOS_TOKEN_PEPPER.encode(), secret.encode(), hashlib.sha256)


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    while number:
        number, digit = divmod(number, 36)
        digits = _BASE36[digit] + digits
    return digits.rjust(7, "0")


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


@transaction.atomic
def issue(
    *,
    by: Actor,
    name: str,
    scopes: Collection[str],
    lifetime: timedelta = timedelta(days=90),
    networks: Iterable[str] = (),
    account: User | None = None,
) -> tuple[ApiToken, str]:
    """Create a token and return it with its value, which is never shown again.

    It is the actor's own, or that of a service account (``account``), which takes people.manage. It is
    taken from ``networks`` only (addresses or CIDR), or from anywhere. A token made through a token has
    no scope that one lacks.
    """
    _require_may_issue(by, account)
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        rule = f"must be some of {', '.join(SCOPES)}" if scopes else "must be at least one"
        raise Invalid([{"field": "scopes", "rule": rule}])
    if by.token is not None and (beyond := sorted(set(scopes) - set(by.token.scopes))):
        raise ScopeMissing(scope=beyond[0])
    if STEP_UP_SCOPES & set(scopes):
        policy.require_fresh(by, "token.manage")
    if not timedelta(0) < lifetime <= LONGEST:
        raise Invalid([{"field": "lifetime", "rule": f"must be at most {LONGEST.days} days"}])
    key_id, secret = _random(8), _random(43)
    token = ApiToken.objects.create(
        user=account or by.user,
        name=name,
        key_id=key_id,
        secret_hash=_hash(secret),
        scopes=sorted(set(scopes)),
        allowed_networks=allowed.normal(networks),
        expires_at=clock.now() + lifetime,
    )
    outbox.audit(
        by.ref,
        "token.issue",
        resource_type="token",
        resource_id=token.pk,
        detail={"name": name, "user": token.user.username, "scopes": token.scopes}
        | ({"networks": token.allowed_networks} if token.allowed_networks else {}),
    )
    body = f"{PREFIX}{key_id}_{secret}"
    return token, f"{body}_{_checksum(body)}"


def _require_may_issue(by: Actor, account: User | None) -> None:
    if account is None:
        policy.require_entry(by, "token.manage")
        return
    policy.require(by, "people.manage")
    if account.organization_id != by.user.organization_id or not account.is_service_account:
        raise NotAllowed(action="issuing tokens for anybody but yourself and service accounts")
    # Whoever holds the token acts as the account.
    policy.require_not_above(by, account)


def verify(value: str, *, address: str | None) -> ApiToken:
    """The usable token behind a value, with its user; raise ``TokenInvalid`` for any other.

    ``address`` is where it is used from (``client.address``).
    """
    body, _, checksum = value.rpartition("_")
    parts = body.removeprefix(PREFIX).split("_")
    if not value.isascii() or not body.startswith(PREFIX) or len(parts) != 2:
        raise TokenInvalid
    if not hmac.compare_digest(_checksum(body), checksum):
        raise TokenInvalid
    key_id, secret = parts
    # Whose it is will be known when it is found.
    with tenancy.platform():
        token = ApiToken.objects.judged().select_related("user").filter(key_id=key_id).first()
        if token is None:
            raise TokenInvalid
        if not hmac.compare_digest(bytes(token.secret_hash), _hash(secret)):
            raise _refused(token, "wrong secret")
        if not token.is_usable:
            raise _refused(token, "revoked, expired, or its owner is disabled")
        if not allowed.includes(token.allowed_networks, address):
            raise _refused(token, f"used from {address}, which is not in its networks")
        _note_use(token)
    return token


def _refused(token: ApiToken, reason: str) -> TokenInvalid:
    """On record with the organization it belongs to; the caller learns nothing of it."""
    by = Actor(user=token.user, token=token).ref
    denials.note(by, "token.use", reason=reason)
    return TokenInvalid()


def _note_use(token: ApiToken) -> None:
    now = clock.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - _USE_GRAIN)
    ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)


@transaction.atomic
def revoke(*, by: Actor, token: ApiToken) -> None:
    """Make a token useless from the next request on. Revoking twice is harmless.

    Somebody else's takes people.manage, and a place not below theirs.
    """
    if token.user_id != by.user.pk:
        policy.require(by, "people.manage")
        if token.user.organization_id != by.user.organization_id:
            raise NotAllowed(action="revoking tokens of another organization")
        policy.require_not_above(by, token.user)
    revoked = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=clock.now())
    if revoked:
        detail = {"name": token.name, "user": token.user.username}
        outbox.audit(
            by.ref, "token.revoke", resource_type="token", resource_id=token.pk, detail=detail
        )
