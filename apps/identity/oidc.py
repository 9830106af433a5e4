"""OpenID Connect, the client's side: authorization code with PKCE, and a strict look at what comes back.

Speaks HTTP with the provider and knows no person of ours; ``services.provider`` decides who it is.
Everything the provider says is checked as if somebody else had said it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
import jwt
from django.conf import settings

from apps.identity.errors import ProviderRefused, ProviderUnavailable

# Signatures only the provider can make. Never "none", and no HS: its key would be our own secret, or
# the provider's public key taken for one.
_KEYS: Final[dict[str, dict[str, str]]] = {
    "RS256": {"kty": "RSA"},
    "ES256": {"kty": "EC", "crv": "P-256"},
}
_REQUIRED: Final = ["iss", "sub", "aud", "exp", "iat"]
_CLOCKS_DIFFER: Final = timedelta(seconds=60)
_PATIENCE_S: Final = 10
_LARGEST: Final = 1024 * 1024
_REMEMBERED_S: Final = 3600
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

_UNSOUND: Final = (
    "The answer of the identity provider could not be trusted: {what}. Nothing was changed."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What one browser must bring back; it works once."""

    state: str
    nonce: str
    verifier: str
    # Asked to prove who they are anew, whatever session they have at the provider.
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the provider says it is, as far as it may be believed."""

    issuer: str
    subject: str
    username: str
    name: str
    # Only when the provider has verified it.
    email: str
    groups: frozenset[str]
    # When they proved it to the provider, if that said so.
    proved_at: datetime | None


def is_on() -> bool:
    return bool(settings.AOS_OIDC_ISSUER)


def begin(*, back: str, fresh: bool) -> tuple[str, Begun]:
    """The address to send the browser to, and what to keep until it is back."""
    begun = Begun(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(64),
        fresh=fresh,
    )
    digest = hashlib.sha256(begun.verifier.encode()).digest()
    query = {
        "response_type": "code",
        "client_id": settings.AOS_OIDC_CLIENT_ID,
        "redirect_uri": back,
        "scope": settings.AOS_OIDC_SCOPES,
        "state": begun.state,
        "nonce": begun.nonce,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    if fresh:
        query |= {"prompt": "login", "max_age": "0"}
    address = _address("authorization_endpoint")
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(query)}", begun


def finish(begun: Begun, *, code: str, back: str, since: datetime) -> Identity:
    """Trade the code for who it is. Raises ``ProviderRefused`` or ``ProviderUnavailable``.

    ``since`` is when the browser left; a fresh proof must not be older.
    """
    answer = _redeem(begun, code=code, back=back)
    token = answer.get("id_token")
    if not isinstance(token, str):
        raise _unsound("it has no ID token")
    claims = _verified(token)
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), begun.nonce.encode()):
        raise _unsound("its nonce is not ours")
    proved_at = _proved_at(claims)
    if begun.fresh and (proved_at is None or proved_at < since - _CLOCKS_DIFFER):
        raise ProviderRefused(reason="The identity provider did not ask you anew who you are.")
    return _identity(_complete(claims, answer.get("access_token")), proved_at)


def end_address() -> str:
    """Where people sign out of the provider; empty when it has no such place."""
    address = _metadata().get("end_session_endpoint")
    return _safe(address) if isinstance(address, str) else ""


# --- what comes back -----------------------------------------------------------------------------


def _redeem(begun: Begun, *, code: str, back: str) -> dict[str, Any]:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": back,
        "code_verifier": begun.verifier,
    }
    name, secret = settings.AOS_OIDC_CLIENT_ID, settings.AOS_OIDC_CLIENT_SECRET
    ways = _metadata().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    headers = {}
    if secret and "client_secret_basic" in ways:
        pair = f"{quote_plus(name)}:{quote_plus(secret)}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    else:
        form |= {"client_id": name} | ({"client_secret": secret} if secret else {})
    return _ask("POST", _address("token_endpoint"), data=form, headers=headers)


def _verified(token: str) -> dict[str, Any]:
    """The claims of an ID token of this provider, for us, signed and in its time."""
    try:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in _KEYS:
            raise _unsound(f"its signature is of the kind {str(algorithm)[:20]!r}")
        claims: dict[str, Any] = jwt.decode(
            token,
            _key(header.get("kid"), algorithm),
            algorithms=[algorithm],
            issuer=settings.AOS_OIDC_ISSUER,
            audience=settings.AOS_OIDC_CLIENT_ID,
            leeway=_CLOCKS_DIFFER,
            options={"require": _REQUIRED},
        )
    except jwt.PyJWTError as error:
        raise _unsound(_WRONG.get(type(error), "its ID token is not sound")) from error
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if (several or "azp" in claims) and claims.get("azp") != settings.AOS_OIDC_CLIENT_ID:
        raise _unsound("it was made for another application")
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
        raise _unsound("it names nobody")
    return claims


_WRONG: Final[dict[type[Exception], str]] = {
    jwt.InvalidAudienceError: "it was made for another application",
    jwt.InvalidIssuerError: "it comes from another issuer",
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it comes from the future",
    jwt.InvalidSignatureError: "its signature is not the provider's",
}


def _key(kid: object, algorithm: str) -> Any:
    """The provider's public key of this name. An unknown name may be a new key: ask once more."""
    for anew in (False, True):
        keys = _keys(anew=anew)
        fitting = [key for key in keys if _fits(key, algorithm) and kid in {None, key.get("kid")}]
        # Without a name there must be no choice.
        if len(fitting) == 1 or (fitting and kid is not None):
            return jwt.PyJWK(fitting[0], algorithm=algorithm).key
    raise _unsound("its signature is not the provider's")


def _fits(key: dict[str, Any], algorithm: str) -> bool:
    return (
        all(key.get(name) == value for name, value in _KEYS[algorithm].items())
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
    )


def _proved_at(claims: dict[str, Any]) -> datetime | None:
    told = claims.get("auth_time")
    if isinstance(told, bool) or not isinstance(told, int) or not 0 < told < 2**40:
        return None
    return datetime.fromtimestamp(told, tz=UTC)


def _complete(claims: dict[str, Any], access_token: object) -> dict[str, Any]:
    """Add what the provider tells about the person elsewhere, when the ID token leaves it out."""
    wanted = {settings.AOS_OIDC_USERNAME_CLAIM, settings.AOS_OIDC_EMAIL_CLAIM}
    if settings.AOS_OIDC_ROLES:
        wanted.add(settings.AOS_OIDC_GROUPS_CLAIM)
    if wanted <= set(claims) or "userinfo_endpoint" not in _metadata() or not access_token:
        return claims
    headers = {"Authorization": f"Bearer {access_token}"}
    more = _ask("GET", _address("userinfo_endpoint"), headers=headers)
    if more.get("sub") != claims["sub"]:
        raise _unsound("it tells of somebody else")
    return more | claims


def _identity(claims: dict[str, Any], proved_at: datetime | None) -> Identity:
    verified = claims.get("email_verified") is True
    groups = claims.get(settings.AOS_OIDC_GROUPS_CLAIM)
    groups = [groups] if isinstance(groups, str) else groups
    return Identity(
        issuer=settings.AOS_OIDC_ISSUER,
        subject=claims["sub"],
        username=_text(claims, settings.AOS_OIDC_USERNAME_CLAIM),
        name=_text(claims, "name"),
        email=_text(claims, settings.AOS_OIDC_EMAIL_CLAIM) if verified else "",
        groups=frozenset(each for each in groups or () if isinstance(each, str))
        if isinstance(groups, list)
        else frozenset(),
        proved_at=proved_at,
    )


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _unsound(what: str) -> ProviderRefused:
    return ProviderRefused(reason=_UNSOUND.format(what=what))


# --- the provider --------------------------------------------------------------------------------


class _Memory:
    """What the provider published, for an hour. One for the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    def get(self, address: str, *, anew: bool = False) -> dict[str, Any]:
        with self._lock:
            at, found = self._kept.get(address, (0.0, {}))
        if found and not anew and time.monotonic() - at < _REMEMBERED_S:
            return found
        found = _ask("GET", address)
        with self._lock:
            self._kept[address] = (time.monotonic(), found)
        return found

    def forget(self) -> None:
        with self._lock:
            self._kept.clear()


_memory: Final = _Memory()
forget: Final = _memory.forget


def _metadata() -> dict[str, Any]:
    issuer: str = settings.AOS_OIDC_ISSUER
    found = _memory.get(_safe(f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
    if found.get("issuer") != issuer:
        raise ProviderUnavailable(
            reason="The identity provider calls itself by another name than AOS_OIDC_ISSUER says. "
            "Tell your administrator."
        )
    return found


def _address(name: str) -> str:
    address = _metadata().get(name)
    if not isinstance(address, str):
        raise ProviderUnavailable(reason=f"The identity provider does not publish its {name}.")
    return _safe(address)


def _safe(address: str) -> str:
    """Secrets go over TLS, or nowhere beyond this machine."""
    parts = urlsplit(address)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return address
    raise ProviderUnavailable(reason="The identity provider has an address without TLS.")


def _keys(*, anew: bool = False) -> list[dict[str, Any]]:
    keys = _memory.get(_address("jwks_uri"), anew=anew).get("keys")
    return [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []


def _ask(method: str, address: str, **request: Any) -> dict[str, Any]:
    """A JSON object from the provider: no redirects followed, within time and size."""
    try:
        with (
            httpx.Client(timeout=_PATIENCE_S, follow_redirects=False, verify=_tls()) as client,
            client.stream(method, address, **request) as response,
        ):
            body = _read(response)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ProviderUnavailable(
            reason="The identity provider does not answer. Try again in a moment."
        ) from error
    if response.is_client_error and method == "POST":
        raise ProviderRefused(
            reason="The identity provider did not accept its own code. Try again."
        )
    try:
        found = json.loads(body) if response.is_success else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ProviderUnavailable(reason="The identity provider gave no proper answer. Try again.")
    return found


@cache
def _tls() -> ssl.SSLContext:
    """Made once: it reads every certificate that is trusted here."""
    return httpx.create_ssl_context()


def _read(response: httpx.Response) -> bytes:
    body, until = b"", time.monotonic() + _PATIENCE_S
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _LARGEST or time.monotonic() > until:
            raise httpx.ReadError("too long")
    return body
