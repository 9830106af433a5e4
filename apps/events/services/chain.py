"""The audit chain: each organization's entries, hashed one upon the other.

An entry's hash covers all its columns and the hash before it, so no entry can be changed, removed,
inserted or moved without every later hash being wrong. PostgreSQL writes the words that are hashed
(``form`` in ``sql/audit.sql``), so that what is stored is covered to the last digit; the hash itself is
made here. Whoever can rewrite the whole table could also rewrite all hashes; checkpoints outside the
database are for that (see ``checkpoints``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import connection, transaction

from apps.core import sql
from apps.events.models import AuditSeal

_FILE: Final = sql.load("apps.events.sql", "audit.sql")
SQL: Final = {name: statement.replace(":form:", _FILE["form"]) for name, statement in _FILE.items()}
# What the first entry of an organization is hashed upon.
GENESIS: Final = bytes(32)
_PAGE: Final = 5_000

# Place, stored hash, entry's number, and the entry's words, if it is still there.
Link = tuple[int, bytes, int, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of an organization's chain."""

    organization_id: UUID
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check of one chain found. ``why`` and ``advice`` are empty when nothing is wrong.

    ``seq`` and ``entry_id`` name the first place that is broken and the entry there, as far as it has
    one.
    """

    organization_id: UUID
    checked: int
    seq: int | None = None
    entry_id: int | None = None
    why: str = ""
    advice: str = ""

    @property
    def is_intact(self) -> bool:
        return not self.why


def digest(words: str, *, before: bytes) -> bytes:
    """The hash of an entry, upon the hash before it."""
    return hashlib.sha256(before + words.encode()).digest()


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
        hashed = digest(entry["words"], before=before)
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


@transaction.atomic
def verify(organization_id: UUID, *, known: Mapping[int, bytes] | None = None) -> Verdict:
    """Recompute an organization's chain from its first entry; name the first thing that is wrong.

    ``known`` holds hashes by place from signed checkpoints: the chain must still pass through them.
    """
    # One transaction, because the chain is read through a cursor, which a pooler would lose between two.
    with transaction.atomic():
        return _verify(organization_id, known=known or {})


def _verify(organization_id: UUID, *, known: Mapping[int, bytes]) -> Verdict:
    expected, before, vouched = 0, GENESIS, 0
    for link in _links(organization_id):
        expected += 1
        seq, stored, _, words = link
        if seq != expected or words is None or digest(words, before=before) != stored:
            return _broken(organization_id, link, expected=expected)
        if expected in known:
            if known[expected] != stored:
                return _rewritten(organization_id, link, since=vouched + 1)
            vouched = expected
        before = stored
    if known and max(known) > expected:
        return _cut(organization_id, expected, seen=max(known))
    return _without_strays(organization_id, expected)


def _links(organization_id: UUID) -> Iterator[Link]:
    """An organization's chain with its entries, streamed: it does not fit into memory for ever."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(SQL["chain"], {"organization_id": organization_id})
        while rows := cursor.fetchmany(_PAGE):
            yield from rows


_RESTORE: Final = (
    "Keep the database as it is, and compare this entry with a backup from before. Who had the "
    "database's password is who could do this."
)


def _broken(organization_id: UUID, link: Link, *, expected: int) -> Verdict:
    seq, _, entry_id, words = link
    place = expected
    named: int | None = entry_id
    if seq > expected:
        why = f"place {expected} of the chain is missing: its seal was removed"
        named = _first_stray(organization_id)
    elif seq < expected:
        place, why = seq, f"a seal stands at place {seq}, where none belongs"
    elif words is None:
        where = "belongs to another organization now" if _exists(entry_id) else "was removed"
        why = f"entry {entry_id}, sealed at place {seq}, {where}"
    else:
        why = f"entry {entry_id} is not what was sealed at place {seq}: it or its seal was changed"
    return Verdict(
        organization_id=organization_id,
        checked=expected - 1,
        seq=place,
        entry_id=named,
        why=why,
        advice=_RESTORE,
    )


def _rewritten(organization_id: UUID, link: Link, *, since: int) -> Verdict:
    seq, _, entry_id, _ = link
    return Verdict(
        organization_id=organization_id,
        checked=seq - 1,
        seq=seq,
        entry_id=entry_id,
        why=f"places {since} to {seq} were rewritten: their hashes fit each other, but not the "
        "signed checkpoint",
        advice="Compare the entries of these places with a backup from before. " + _RESTORE,
    )


def _cut(organization_id: UUID, expected: int, *, seen: int) -> Verdict:
    return Verdict(
        organization_id=organization_id,
        checked=expected,
        seq=expected + 1,
        entry_id=_first_stray(organization_id),
        why=f"the chain ends at place {expected}, but a signed checkpoint saw it reach {seen}",
        advice="If an older backup was restored, this is why. Otherwise entries were cut off: look "
        "for them in a backup.",
    )


def _without_strays(organization_id: UUID, checked: int) -> Verdict:
    stray = _first_stray(organization_id)
    if stray is None:
        return Verdict(organization_id=organization_id, checked=checked)
    return Verdict(
        organization_id=organization_id,
        checked=checked,
        entry_id=stray,
        why=f"entry {stray} has no place in the chain: it was slipped in, or its seal was removed",
        advice=_RESTORE,
    )


def _first_stray(organization_id: UUID) -> int | None:
    rows = sql.fetch(SQL["strays"], {"organization_id": organization_id})
    return rows[0]["id"] if rows else None


def _exists(entry_id: int) -> bool:
    return bool(sql.fetch(SQL["entry"], {"id": entry_id}))
