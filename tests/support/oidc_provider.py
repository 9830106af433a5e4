"""An OpenID provider that speaks real HTTP, and lies on demand.

Authorization code flow with PKCE: discovery, keys, authorization, token, userinfo, end of session. It
checks what a strict provider checks, so that a sloppy client fails here too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT_ID = "aos"
CLIENT_SECRET = "the client's secret: with a colon"  # noqa: S105
Claims = dict[str, Any]


@dataclass
class Key:
    """A signing key with its public half, as providers publish it."""

    kid: str
    algorithm: str
    private: Any = None

    def __post_init__(self) -> None:
        if self.algorithm == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())
        else:
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def public(self) -> dict[str, Any]:
        kind = jwt.get_algorithm_by_name(self.algorithm)
        found = kind.to_jwk(self.private.public_key(), as_dict=True)
        return found | {"kid": self.kid, "use": "sig", "alg": self.algorithm}

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


RSA = Key("rsa-1", "RS256")
EC = Key("ec-1", "ES256")
OTHER = Key("rsa-1", "RS256")


@dataclass
class Provider:
    """What the provider knows and how it behaves; tests change it as they go."""

    person: Claims = field(default_factory=lambda: {"sub": "sub-1", "preferred_username": "nina"})
    keys: list[Key] = field(default_factory=lambda: [RSA])
    signer: Key = field(default_factory=lambda: RSA)
    # Changes the claims, or makes the whole token, before it is handed out.
    twist: Callable[[Claims], Claims] = lambda claims: claims
    forge: Callable[[Claims], str] | None = None
    # Claims that are told at the userinfo endpoint only.
    userinfo: Claims = field(default_factory=dict)
    metadata: Claims = field(default_factory=dict)
    auth_time: Callable[[dict[str, str]], int | None] = lambda _: int(time.time())
    # A page with a button, as people see it; without it every request is granted at once.
    with_page: bool = False
    fails: int = 0
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    issuer: str = ""

    def start(self) -> Provider:
        handler = type("Handler", (_Handler,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def describe(self) -> Claims:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end",
        } | self.metadata

    def grant(self, query: dict[str, str]) -> str:
        """Remember what was asked under a code, and say where to send the browser."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        answer = urlencode({"code": code, "state": query["state"], "iss": self.issuer})
        return f"{query['redirect_uri']}?{answer}"

    def redeem(self, form: dict[str, str], client: tuple[str, str]) -> Claims | None:
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or client != (CLIENT_ID, CLIENT_SECRET)
            or form["redirect_uri"] != asked["redirect_uri"]
            or (asked["code_challenge_method"], challenge) != ("S256", asked["code_challenge"])
        ):
            return None
        return {"token_type": "Bearer", "access_token": "open", "id_token": self.token(asked)}

    def token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = self.person | {
            "iss": self.issuer,
            "aud": asked["client_id"],
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
        }
        if (auth_time := self.auth_time(asked)) is not None:
            claims["auth_time"] = auth_time
        claims = self.twist(claims)
        if self.forge:
            return self.forge(claims)
        return sign(claims, self.signer)


def sign(claims: Claims, key: Key) -> str:
    return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"kid": key.kid})


def unsigned(claims: Claims, header: Claims, signature: bytes = b"") -> str:
    """A token put together by hand: libraries refuse to make the bad ones."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.provider.asked.append(parts.path)
        if self.provider.fails:
            self._send(self.provider.fails, {"error": "server_error"})
        elif parts.path == "/.well-known/openid-configuration":
            self._send(200, self.provider.describe())
        elif parts.path == "/keys":
            self._send(200, {"keys": [key.public for key in self.provider.keys]})
        elif parts.path == "/authorize" and self.provider.with_page:
            self._page(f'<h1>Provider</h1><a href="{self.provider.grant(query)}">Continue</a>')
        elif parts.path == "/authorize":
            self._to(self.provider.grant(query))
        elif parts.path == "/userinfo" and self.headers["Authorization"] == "Bearer open":
            self._send(200, {"sub": self.provider.person["sub"]} | self.provider.userinfo)
        elif parts.path == "/favicon.ico":
            self._raw(204, b"", "image/x-icon")
        elif parts.path == "/end":
            self._page("<h1>Signed out at the provider</h1>")
        else:
            self._send(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.provider.asked.append(self.path)
        answer = self.provider.redeem(form, self._client(form))
        self._send(200 if answer else 400, answer or {"error": "invalid_grant"})

    def _client(self, form: dict[str, str]) -> tuple[str, str]:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            name, _, secret = base64.b64decode(value).decode().partition(":")
            return unquote_plus(name), unquote_plus(secret)
        return form.get("client_id", ""), form.get("client_secret", "")

    def _send(self, status: int, body: Claims) -> None:
        self._raw(status, json.dumps(body).encode(), "application/json")

    def _page(self, markup: str) -> None:
        page = f'<!doctype html><html lang="en"><title>Provider</title><main>{markup}</main></html>'
        self._raw(200, page.encode(), "text/html")

    def _to(self, address: str) -> None:
        self.send_response(302)
        self.send_header("Location", address)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _raw(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return
