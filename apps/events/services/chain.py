"""The audit chain: each organization's entries, hashed one upon the other.

An entry's hash covers its own words and the hash before it (SHA-256 over canonical JSON), so no
entry can be changed, removed, inserted or moved without every later hash being wrong. Whoever can
rewrite the whole table could also rewrite all hashes; checkpoints outside the database are for that
(see ``checkpoints``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from apps.core import sql
from apps.events.models import AuditSeal

SQL: Final = sql.load("apps.events.sql", "audit.sql")
# What the first entry of an organization is hashed upon.
GENESIS: Final = bytes(32)
_PAGE: Final = 5_000
_COVERED: Final = (
    "id",
    "organization_id",
    "actor_kind",
    "actor_id",
    "actor_name",
    "token_id",
    "action",
    "resource_type",
    "resource_id",
    "detail",
    "trace_id",
    "at",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of an organization's chain."""

    organization_id: UUID
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check of one chain found. ``why`` is empty when nothing is wrong.

    ``seq`` and ``entry_id`` name the first place that is broken, as far as it has one.
    """

    organization_id: UUID
    checked: int
    seq: int | None = None
    entry_id: int | None = None
    why: str = ""

    @property
    def is_intact(self) -> bool:
        return not self.why


def digest(entry: Mapping[str, Any], *, seq: int, before: bytes) -> bytes:
    """The hash of an entry at its place, upon the hash before it."""
    words = {name: entry[name] for name in _COVERED} | {"seq": seq}
    text = json.dumps(
        words, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain
    )
    return hashlib.sha256(before + text.encode()).digest()


def _plain(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def seal(*, limit: int = 500) -> int:
    """Give waiting entries their places; return how many.

    Runs in the transaction of the one sealer, the leader, which has proved its seat there.
    """
    sql.require_transaction("chain.seal")
    entries = sql.fetch(SQL["take"], {"limit": limit})
    heads = _heads({entry["organization_id"] for entry in entries})
    seals = []
    for entry in entries:
        organization_id = entry["organization_id"]
        seq, before = heads.get(organization_id, (0, GENESIS))
        hashed = digest(entry, seq=seq + 1, before=before)
        heads[organization_id] = (seq + 1, hashed)
        seals.append(
            AuditSeal(
                organization_id=organization_id, seq=seq + 1, entry_id=entry["id"], hash=hashed
            )
        )
    AuditSeal.objects.bulk_create(seals)
    return len(seals)


def _heads(organizations: Iterable[UUID]) -> dict[UUID, tuple[int, bytes]]:
    rows = sql.fetch(SQL["heads"], {"organizations": list(organizations)})
    return {row["organization_id"]: (row["seq"], bytes(row["hash"])) for row in rows}


def heads() -> list[Head]:
    """The ends of all chains."""
    return [
        Head(organization_id=row["organization_id"], seq=row["seq"], hash=bytes(row["hash"]))
        for row in sql.fetch(SQL["all_heads"], {})
    ]


def verify(organization_id: UUID, *, known: Mapping[int, bytes] | None = None) -> Verdict:
    """Recompute an organization's chain from its first entry; name the first thing that is wrong.

    ``known`` holds hashes by place from signed checkpoints: the chain must still pass through them.
    """
    expected, before, known = 0, GENESIS, dict(known or {})
    for row in _rows(organization_id):
        expected += 1
        why = _fault(row, expected=expected, before=before, known=known.pop(expected, None))
        if why:
            return Verdict(
                organization_id=organization_id,
                checked=expected - 1,
                seq=row["seq"],
                entry_id=row["sealed_entry"],
                why=why,
            )
        before = bytes(row["sealed_hash"])
    if known:
        last = max(known)
        why = f"the chain ends at {expected}, but a checkpoint saw it reach {last}"
        return Verdict(organization_id=organization_id, checked=expected, seq=expected + 1, why=why)
    return _without_strays(organization_id, expected)


def _rows(organization_id: UUID) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        params = {"organization_id": organization_id, "after": after, "limit": _PAGE}
        rows = sql.fetch(SQL["chain"], params)
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1]["seq"]


def _fault(row: Mapping[str, Any], *, expected: int, before: bytes, known: bytes | None) -> str:
    if row["seq"] != expected:
        return f"place {expected} is missing"
    if row["id"] is None:
        return "the entry is gone"
    if digest(row, seq=expected, before=before) != bytes(row["sealed_hash"]):
        return "the entry does not match its hash"
    if known is not None and known != bytes(row["sealed_hash"]):
        return "the hash differs from the signed checkpoint"
    return ""


def _without_strays(organization_id: UUID, checked: int) -> Verdict:
    rows = sql.fetch(SQL["strays"], {"organization_id": organization_id})
    if not rows:
        return Verdict(organization_id=organization_id, checked=checked)
    return Verdict(
        organization_id=organization_id,
        checked=checked,
        entry_id=rows[0]["id"],
        why="the entry has no place in the chain",
    )
