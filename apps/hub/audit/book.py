"""A page of the audit log as people read it: sentences, their place in the chain, what changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from apps.events.models import AuditCheckpoint, AuditEntry, AuditInbox, AuditSeal
from apps.events.services import delivery
from apps.hub import subjects
from apps.hub.audit import words
from apps.hub.subjects import Subject
from apps.identity.models import User

SIZE: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One entry, told."""

    entry: AuditEntry
    says: str
    icon: str
    is_refusal: bool
    subject: Subject
    # What the actor acted through, where they did: a token, or a run of an agent.
    token: Subject | None
    agent: Subject | None
    run: Subject | None
    # Its place in the chain; ``None`` while it waits for one.
    seal: AuditSeal | None

    @property
    def hash(self) -> str:
        return bytes(self.seal.hash).hex() if self.seal else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    number: int
    at: datetime
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainState:
    """How far an organization's log is sealed and signed."""

    last: AuditSeal | None
    waiting: int
    checkpoint: Checkpoint | None
    # Since when a place outside the database takes no checkpoints, if one does not.
    away_since: datetime | None


def tell(entries: Sequence[AuditEntry], *, to: User) -> list[Line]:
    found = subjects.of(entries, to=to)
    seals = {seal.entry_id: seal for seal in _seals(to, [entry.pk for entry in entries])}
    return [_line(entry, found, seals.get(entry.pk)) for entry in entries]


def _seals(user: User, ids: Collection[int]) -> Collection[AuditSeal]:
    return AuditSeal.objects.filter(organization_id=user.organization_id, entry_id__in=ids)


def _line(entry: AuditEntry, found: Mapping[subjects.Key, Subject], seal: AuditSeal | None) -> Line:
    subject = subjects.named(entry.resource_type, entry.resource_id, found)
    return Line(
        entry=entry,
        says=words.sentence(entry, resource=subject.name),
        icon=words.icon(entry),
        is_refusal=words.is_refusal(entry),
        subject=subject,
        token=_chained("token", entry.token_id, found),
        agent=_chained("agent", entry.agent_id, found),
        run=_chained("run", entry.run_id, found),
        seal=seal,
    )


def _chained(kind: str, key: UUID | None, found: Mapping[subjects.Key, Subject]) -> Subject | None:
    return subjects.named(kind, str(key), found) if key else None


def changes(entry: AuditEntry) -> list[Change]:
    return [
        Change(field=field, old=old, new=new)
        for field, (old, new) in entry.detail.get("changes", {}).items()
    ]


def facts(entry: AuditEntry) -> dict[str, Any]:
    """What an entry says beside its changes."""
    return {name: value for name, value in entry.detail.items() if name != "changes"}


def chain_state(organization_id: UUID) -> ChainState:
    seals = AuditSeal.objects.filter(organization_id=organization_id)
    return ChainState(
        last=seals.order_by("-seq").first(),
        waiting=AuditInbox.objects.filter(entry__organization_id=organization_id).count(),
        checkpoint=_checkpoint(organization_id),
        away_since=min(
            (each.away_since for each in delivery.standings() if each.away_since), default=None
        ),
    )


def _checkpoint(organization_id: UUID) -> Checkpoint | None:
    """The last signed checkpoint, as far as it is about this organization's chain."""
    last = AuditCheckpoint.objects.order_by("-number").first()
    head = last.body["heads"].get(str(organization_id)) if last else None
    if last is None or head is None:
        return None
    at = datetime.fromisoformat(last.body["at"])
    return Checkpoint(number=last.number, at=at, seq=head[0])
