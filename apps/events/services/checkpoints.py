"""Signed checkpoints of the audit chains.

A checkpoint lists the end of every chain and is signed with Ed25519. Checkpoints are numbered and
each names the digest of the one before, so that none can be dropped unseen, and the newest signature
vouches for all. The sealer writes them to the database; ``delivery`` brings them to the places outside
it (``apps.events.sinks``), which are the ones that count. What happened after the last checkpoint can
be cut off unseen: that is at most a minute, or a thousand entries.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings

from apps.core import clock, sql
from apps.events.models import AuditCheckpoint
from apps.events.services import chain, delivery

_KEY: Final = "signing.key"
# For those who only verify.
_PUBLIC_KEY: Final = "signing.pub"
_NOTHING: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a row of checkpoints says, as far as it can be believed.

    ``hashes`` are those each chain must pass through; ``digests`` are of the lines, by number; ``why``
    says what is wrong with the row, if anything is.
    """

    hashes: dict[UUID, dict[int, bytes]] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    why: str = ""

    @property
    def count(self) -> int:
        return len(self.digests)


def sign() -> int:
    """Sign the present ends of all chains; return the checkpoint's number.

    Runs in the transaction of the one sealer; it leaves the database after that.
    """
    sql.require_transaction("checkpoints.sign")
    last = AuditCheckpoint.objects.order_by("number").last()
    # Not only what the database remembers: numbers that left it are never given out again.
    number = max(last.number if last else 0, delivery.furthest()) + 1
    body = {
        "number": number,
        "before": _digest(last.line).hex() if last else _NOTHING,
        "at": clock.now().isoformat(),
        "heads": {str(head.organization_id): [head.seq, head.hash.hex()] for head in chain.heads()},
    }
    signature = _signing_key().sign(_canonical(body)).hex()
    line = json.dumps({"body": body, "signature": signature}, sort_keys=True)
    AuditCheckpoint.objects.create(number=number, line=line)
    return number


def examine(lines: Iterable[str]) -> Evidence:
    """Follow a row of checkpoints from the first to the newest, and check what vouches for them."""
    found = Evidence()
    before, line, why = _NOTHING, "", ""
    for line in lines:
        body = _body(line)
        if why := _break(body, line, before=before, count=found.count):
            break
        for organization, (seq, digest) in body["heads"].items():
            found.hashes.setdefault(UUID(organization), {})[seq] = bytes.fromhex(digest)
        found.digests[found.count + 1] = _digest(line)
        before = found.digests[found.count].hex()
    if not why and line and not _is_signed(line):
        why = f"checkpoint {found.count} is not signed by our key"
    if not why:
        return found
    return Evidence(digests=found.digests, why=why)


def _break(body: dict[str, Any], line: str, *, before: str, count: int) -> str:
    """Why a line does not continue the row; empty when it does."""
    if not body:
        return f"line {count + 1} is not a checkpoint"
    if body["number"] != count + 1:
        return f"checkpoint {count + 1} is missing before number {body['number']}"
    if body["before"] != before:
        # It names the one before as it was when it was signed, if it is genuine itself.
        return f"checkpoint {count if _is_signed(line) else count + 1} was changed"
    return ""


def _body(line: str) -> dict[str, Any]:
    """The checkpoint in a line; empty when there is none."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        body: dict[str, Any] = json.loads(line)["body"]
        for organization, (seq, digest) in body["heads"].items():
            UUID(organization), int(seq), bytes.fromhex(digest)  # raise when they are not
        return body if isinstance(body["number"], int) and "before" in body else {}
    return {}


def _is_signed(line: str) -> bool:
    public = _public_key()
    if public is None:
        return False
    try:
        found = json.loads(line)
        public.verify(bytes.fromhex(found["signature"]), _canonical(found["body"]))
    except (ValueError, KeyError, TypeError, InvalidSignature):
        return False
    return True


def _folder() -> Path:
    return Path(settings.AOS_AUDIT_FOLDER)


def _signing_key() -> Ed25519PrivateKey:
    """The key, made at first use. Whoever holds it can sign: keep it off the database's host."""
    path = _folder() / _KEY
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    key = Ed25519PrivateKey.generate()
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes_raw())
    path.with_name(_PUBLIC_KEY).write_bytes(key.public_key().public_bytes_raw())
    return key


def _public_key() -> Ed25519PublicKey | None:
    """What verifying needs; never makes a key. ``None`` when there is none to be had."""
    with suppress(FileNotFoundError):
        return Ed25519PublicKey.from_public_bytes((_folder() / _PUBLIC_KEY).read_bytes())
    with suppress(FileNotFoundError):
        private = (_folder() / _KEY).read_bytes()
        return Ed25519PrivateKey.from_private_bytes(private).public_key()
    return None


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _digest(line: str) -> bytes:
    return hashlib.sha256(line.encode()).digest()
