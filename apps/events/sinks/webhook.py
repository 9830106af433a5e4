"""Checkpoints posted to a receiver of the operator's choice.

Delivered at least once and in order; the receiver tells repetitions by ``X-AOS-Checkpoint``, the
number. It answers 2xx when the checkpoint is kept, and 409 when it holds another one under this number.
The body is the signed line itself. With a secret, ``X-AOS-Signature: t=<seconds>,v1=<hex>`` carries
HMAC-SHA256 over ``<seconds>.<body>``, so that a receiver can refuse strangers and old recordings.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.events.errors import SinkAway, SinkConflict
from apps.events.sinks.base import Checkpoint

_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class WebhookSink:
    # Some receivers want a key in the query.
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    readable = False
    near = False

    @classmethod
    def at(cls, url: str) -> Self:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host or parts.username or parts.password:
            raise ImproperlyConfigured(
                f"AOS_AUDIT_SINKS: the webhook at {host or 'no host'} must be https://host/path, without "
                "a password; a secret goes into AOS_AUDIT_WEBHOOK_SECRET."
            )
        if parts.scheme != "https" and not _is_this_host(host):
            raise ImproperlyConfigured(
                f"AOS_AUDIT_SINKS: the webhook at {host} must use https; http is for this host only."
            )
        return cls(url, settings.AOS_AUDIT_WEBHOOK_SECRET)

    @property
    def name(self) -> str:
        """Without the query."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"

    def put(self, checkpoint: Checkpoint) -> None:
        body = checkpoint.line.encode()
        status = self._post(body, self._headers(checkpoint.number, body))
        if status == HTTPStatus.CONFLICT:
            raise SinkConflict(sink=self.name, number=checkpoint.number, held=checkpoint.number)
        if 300 <= status < 400:
            raise SinkAway(sink=self.name, reason=f"answers {status}; redirects are not followed")
        if not 200 <= status < 300:
            raise SinkAway(sink=self.name, reason=f"answers {status}")

    def read(self) -> Iterator[str]:
        raise SinkAway(sink=self.name, reason="cannot be read: it only receives")

    def _headers(self, number: int, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "X-AOS-Checkpoint": str(number)}
        if self.secret:
            now = int(time.time())
            signed = hmac.new(self.secret.encode(), f"{now}.".encode() + body, hashlib.sha256)
            headers["X-AOS-Signature"] = f"t={now},v1={signed.hexdigest()}"
        return headers

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        # The system's certificates, so that a company's own authority counts. The environment is not
        # asked for proxies or passwords, and the answer is not read: only its status counts.
        trust = ssl.create_default_context()
        try:
            with (
                httpx.Client(
                    timeout=_PATIENCE_S, follow_redirects=False, trust_env=False, verify=trust
                ) as client,
                client.stream("POST", self.url, content=body, headers=headers) as answer,
            ):
                return answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = f"does not answer: {type(error).__name__}"
            raise SinkAway(sink=self.name, reason=reason) from error


def _is_this_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
