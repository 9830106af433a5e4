"""Signed checkpoints of the audit chains, kept outside the database.

A checkpoint lists the end of every chain and is signed with Ed25519. Checkpoints are numbered and
each names the digest of the one before, so that none can be dropped unseen. They are appended to a
file (``AOS_AUDIT_FOLDER``, best on another volume or host); the database keeps a copy, so that a
shortened file is noticed too. What happened after the last checkpoint can be cut off unseen: that
is at most a minute, or a thousand entries.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings
from django.db.models import Max

from apps.core import clock, sql
from apps.events.models import AuditCheckpoint
from apps.events.services import chain

_FILE: Final = "checkpoints.jsonl"
_KEY: Final = "signing.key"
_NOTHING: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checkpoints say: the hashes each chain must pass through, or why they say nothing."""

    hashes: dict[UUID, dict[int, bytes]]
    count: int
    why: str = ""


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
    return key


def write() -> int:
    """Sign the present ends of all chains and keep them; return the checkpoint's number.

    Runs in the transaction of the one sealer. The file is written first: a crash in between leaves
    a checkpoint that the database does not know, which is evidence all the same.
    """
    sql.require_transaction("checkpoints.write")
    last = _last_line()
    # A file that was shortened must not be continued as if nothing had happened.
    known = AuditCheckpoint.objects.aggregate(last=Max("number"))["last"] or 0
    number = max(known, json.loads(last)["body"]["number"] if last else 0) + 1
    body = {
        "number": number,
        "before": _digest(last) if last else _NOTHING,
        "at": clock.now().isoformat(),
        "heads": {str(head.organization_id): [head.seq, head.hash.hex()] for head in chain.heads()},
    }
    signature = _signing_key().sign(_canonical(body)).hex()
    _append(json.dumps({"body": body, "signature": signature}, sort_keys=True))
    AuditCheckpoint.objects.create(number=number, body=body, signature=signature)
    return number


def _append(line: str) -> None:
    path = _folder() / _FILE
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def _last_line() -> str:
    """The file's last line, read from its end: the file grows for years."""
    path = _folder() / _FILE
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail, length = b"", 4096
        while size and b"\n" not in tail.rstrip(b"\n") and len(tail) < size:
            length = min(length * 2, size)
            file.seek(size - length)
            tail = file.read(length)
    return tail.rstrip(b"\n").rsplit(b"\n", 1)[-1].decode()


def _lines() -> Iterator[str]:
    path = _folder() / _FILE
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in file)


def read() -> Evidence:
    """Check all checkpoints and gather what they prove about the chains."""
    public = _signing_key().public_key()
    hashes: dict[UUID, dict[int, bytes]] = {}
    before, count = _NOTHING, 0
    for count, line in enumerate(_lines(), start=1):
        try:
            found = json.loads(line)
            body = found["body"]
            _require_signature(public, body, found["signature"])
        except (ValueError, KeyError, TypeError, InvalidSignature):
            return _broken(hashes, count, f"checkpoint {count} is not signed by our key")
        if body["number"] != count or body["before"] != before:
            return _broken(hashes, count, f"a checkpoint before number {body['number']} is missing")
        for organization, (seq, digest) in body["heads"].items():
            hashes.setdefault(UUID(organization), {})[seq] = bytes.fromhex(digest)
        before = _digest(line)
    if AuditCheckpoint.objects.filter(number__gt=count).exists():
        return _broken(
            hashes, count, f"the file ends at checkpoint {count}, the database knows more"
        )
    return Evidence(hashes=hashes, count=count)


def _broken(hashes: dict[UUID, dict[int, bytes]], count: int, why: str) -> Evidence:
    return Evidence(hashes=hashes, count=count, why=why)


def _require_signature(public: Ed25519PublicKey, body: dict[str, Any], signature: str) -> None:
    public.verify(bytes.fromhex(signature), _canonical(body))


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
