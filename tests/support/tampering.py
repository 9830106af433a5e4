"""What a person with the database's password can do to the audit log.

Each kind of tampering changes something and says what a verification has to name.
"""

# ruff: noqa: S608  # the names of columns in statements are those of a table in this file

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from apps.core import sql
from apps.events.services import chain

TABLES = ("events_auditentry", "events_auditseal", "events_auditcheckpoint")


def by_hand(statement, **params):
    """Switch the triggers of the audit tables off, write, and switch them on again."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(statement, params)
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
            # The suite empties the tables between its tests.
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_keep")


@dataclass(frozen=True)
class Link:
    seq: int
    hash: bytes
    entry_id: int


@dataclass(frozen=True)
class Expected:
    """What a verification has to say. ``seq`` or ``entry_id`` may be left open; ``why`` is a part."""

    why: str
    seq: int | None = None
    entry_id: int | None = None

    def matches(self, verdict):
        return (
            self.why in verdict.why
            and (self.seq is None or self.seq == verdict.seq)
            and (self.entry_id is None or self.entry_id == verdict.entry_id)
        )


class Log:
    """One organization's chain as it is before the tampering."""

    def __init__(self, organization: UUID, *, checkpoints: tuple[int, ...] = ()) -> None:
        self.organization = organization
        with connection.cursor() as cursor:
            cursor.execute(chain.SQL["chain"], {"organization_id": organization})
            self.links = [Link(seq, bytes(hash_), entry) for seq, hash_, entry, _ in cursor]
        # Places that a signed checkpoint vouches for; the last one always.
        self.checkpoints = checkpoints or (self.links[-1].seq,)

    def other(self, target, dice):
        return dice.choice([link for link in self.links if link.seq != target.seq])

    def next_checkpoint(self, seq):
        return next(each for each in self.checkpoints if each >= seq)


_ANOTHER = {
    "organization_id": "gen_random_uuid()",
    "actor_kind": "'robot'",
    "actor_id": "gen_random_uuid()",
    "actor_name": "'mallory'",
    "token_id": "gen_random_uuid()",
    "agent_id": "gen_random_uuid()",
    "run_id": "gen_random_uuid()",
    "action": "action || '.not'",
    "resource_type": "'nothing'",
    "resource_id": "resource_id || '0'",
    "detail": "detail || '{\"more\": null}'",
    "trace_id": "md5(trace_id)",
    "at": "at + interval '1 microsecond'",
}
COLUMNS = ("id", *_ANOTHER)


def change(log, target, column, dice):
    entry = target.entry_id
    if column == "id":
        by_hand("DELETE FROM events_auditinbox WHERE entry_id = %(id)s", id=entry)
        by_hand(
            "UPDATE events_auditentry SET id = (SELECT max(id) + 7 FROM events_auditentry) "
            "WHERE id = %(id)s",
            id=entry,
        )
        return Expected(f"entry {entry}, sealed at place {target.seq}, was removed", target.seq)
    by_hand(
        f"UPDATE events_auditentry SET {column} = {_ANOTHER[column]} WHERE id = %(id)s", id=entry
    )
    if column == "organization_id":
        return Expected("belongs to another organization now", target.seq, entry)
    return Expected(f"entry {entry} is not what was sealed", target.seq, entry)


def _change_something(log, target, dice):
    return change(log, target, dice.choice(COLUMNS), dice)


def _remove_entry(log, target, dice):
    by_hand("DELETE FROM events_auditentry WHERE id = %(id)s", id=target.entry_id)
    return Expected("was removed", target.seq, target.entry_id)


def _remove_seal(log, target, dice):
    by_hand("DELETE FROM events_auditseal WHERE entry_id = %(id)s", id=target.entry_id)
    if target == log.links[-1]:
        return Expected("but a signed checkpoint saw it reach", target.seq, target.entry_id)
    return Expected(f"place {target.seq} of the chain is missing", target.seq, target.entry_id)


def _remove_both(log, target, dice):
    by_hand("DELETE FROM events_auditseal WHERE entry_id = %(id)s", id=target.entry_id)
    by_hand("DELETE FROM events_auditentry WHERE id = %(id)s", id=target.entry_id)
    if target == log.links[-1]:
        return Expected("but a signed checkpoint saw it reach", target.seq)
    return Expected(f"place {target.seq} of the chain is missing", target.seq)


_COPY = """
INSERT INTO events_auditentry (organization_id, actor_kind, actor_id, actor_name, token_id, agent_id,
       run_id, action, resource_type, resource_id, detail, trace_id, at)
SELECT organization_id, actor_kind, actor_id, 'mallory', token_id, agent_id,
       run_id, action, resource_type, resource_id, detail, trace_id, at
  FROM events_auditentry WHERE id = %(id)s
"""


def _slip_in(log, target, dice):
    by_hand(_COPY, id=target.entry_id)
    return Expected("has no place in the chain", entry_id=_newest())


def _slip_in_between(log, target, dice):
    """Insert an entry with a seal of its own, and move all later ones up by a place."""
    by_hand(_COPY, id=target.entry_id)
    made = _newest()
    owner = {"organization": log.organization, "seq": target.seq}
    # In two steps, because places are unique at every moment.
    by_hand(
        "UPDATE events_auditseal SET seq = -seq "
        "WHERE organization_id = %(organization)s AND seq > %(seq)s",
        **owner,
    )
    by_hand(
        "UPDATE events_auditseal SET seq = 1 - seq "
        "WHERE organization_id = %(organization)s AND seq < 0",
        **owner,
    )
    by_hand(
        "INSERT INTO events_auditseal (organization_id, seq, entry_id, hash) "
        "VALUES (%(organization)s, %(seq)s + 1, %(id)s, %(hash)s)",
        **owner,
        id=made,
        hash=hashlib.sha256(target.hash).digest(),
    )
    return Expected(f"entry {made} is not what was sealed", target.seq + 1, made)


def _newest():
    (row,) = sql.fetch("SELECT max(id) AS id FROM events_auditentry", {})
    return row["id"]


def _change_hash(log, target, dice):
    by_hand(
        "UPDATE events_auditseal SET hash = sha256(hash) WHERE entry_id = %(id)s",
        id=target.entry_id,
    )
    return Expected("it or its seal was changed", target.seq, target.entry_id)


def _change_place(log, target, dice):
    by_hand("UPDATE events_auditseal SET seq = -seq WHERE entry_id = %(id)s", id=target.entry_id)
    return Expected("where none belongs", -target.seq, target.entry_id)


def _move_seal(log, target, dice):
    """Give the seal to another organization."""
    by_hand(
        "UPDATE events_auditseal SET organization_id = gen_random_uuid() WHERE entry_id = %(id)s",
        id=target.entry_id,
    )
    if target == log.links[-1]:
        return Expected("but a signed checkpoint saw it reach", target.seq)
    return Expected(f"place {target.seq} of the chain is missing", target.seq)


def _swap(log, target, dice):
    other = log.other(target, dice)
    by_hand(
        """
        WITH gone AS (DELETE FROM events_auditseal WHERE entry_id IN (%(id)s, %(other)s)
                      RETURNING *)
        INSERT INTO events_auditseal (organization_id, seq, entry_id, hash)
        SELECT a.organization_id, a.seq, b.entry_id, a.hash
          FROM gone AS a JOIN gone AS b ON a.entry_id <> b.entry_id""",
        id=target.entry_id,
        other=other.entry_id,
    )
    first, entry = min((target.seq, other.entry_id), (other.seq, target.entry_id))
    return Expected("is not what was sealed", first, entry)


def _swap_words(log, target, dice):
    """Exchange what two entries say, and leave their numbers and seals alone."""
    other = log.other(target, dice)
    columns = ", ".join(column for column in _ANOTHER if column != "organization_id")
    theirs = ", ".join(f"b.{column}" for column in _ANOTHER if column != "organization_id")
    by_hand(
        f"""
        UPDATE events_auditentry AS a SET ({columns}) = ROW({theirs}) FROM events_auditentry AS b
         WHERE (a.id, b.id) IN ((%(id)s, %(other)s), (%(other)s, %(id)s))""",
        id=target.entry_id,
        other=other.entry_id,
    )
    first, entry = min((target.seq, target.entry_id), (other.seq, other.entry_id))
    return Expected("is not what was sealed", first, entry)


def _cut_tail(log, target, dice):
    """Remove the newest entries with their seals, back to before the last checkpoint."""
    owner = {"organization": log.organization, "seq": target.seq}
    by_hand(
        "DELETE FROM events_auditentry WHERE id IN (SELECT entry_id FROM events_auditseal "
        "WHERE organization_id = %(organization)s AND seq >= %(seq)s)",
        **owner,
    )
    by_hand(
        "DELETE FROM events_auditseal WHERE organization_id = %(organization)s AND seq >= %(seq)s",
        **owner,
    )
    return Expected("but a signed checkpoint saw it reach", target.seq)


def _rewrite(log, target, dice):
    """Forge an entry and compute every hash from there anew: all but the key is at hand."""
    by_hand(
        "UPDATE events_auditentry SET actor_name = 'mallory' WHERE id = %(id)s",
        id=target.entry_id,
    )
    before = log.links[target.seq - 2].hash if target.seq > 1 else chain.GENESIS
    with connection.cursor() as cursor:
        cursor.execute(chain.SQL["chain"], {"organization_id": log.organization})
        rows = [row for row in cursor.fetchall() if row[0] >= target.seq]
    hashes = []
    for _, _, _, words in rows:
        before = chain.digest(words, before=before)
        hashes.append(before)
    by_hand(
        "UPDATE events_auditseal AS seal SET hash = new.hash "
        "FROM unnest(%(ids)s::bigint[], %(hashes)s::bytea[]) AS new (entry_id, hash) "
        "WHERE seal.entry_id = new.entry_id",
        ids=[row[2] for row in rows],
        hashes=hashes,
    )
    return Expected("were rewritten", log.next_checkpoint(target.seq))


KINDS = {
    "changed": _change_something,
    "entry removed": _remove_entry,
    "seal removed": _remove_seal,
    "both removed": _remove_both,
    "slipped in": _slip_in,
    "slipped in between": _slip_in_between,
    "hash changed": _change_hash,
    "place changed": _change_place,
    "seal moved": _move_seal,
    "swapped": _swap,
    "words swapped": _swap_words,
    "tail cut": _cut_tail,
    "rewritten": _rewrite,
}
