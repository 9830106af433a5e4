"""The whole answer to "was the audit log changed?": chains, checkpoints and their places together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from apps.core import walking
from apps.events import sinks
from apps.events.errors import SinkAway
from apps.events.models import AuditCheckpoint, AuditInbox, AuditSeal
from apps.events.services import chain, checkpoints, delivery
from apps.events.services.chain import Verdict
from apps.events.services.checkpoints import Evidence
from apps.events.sinks.base import CheckpointSink


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one place for checkpoints said. ``unread`` tells why it was not asked, if it was not."""

    name: str
    checkpoints: int
    fault: str = ""
    unread: str = ""

    @property
    def kind(self) -> str:
        """For those who may not know where it is."""
        return self.name.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One verdict per organization and one per place of checkpoints.

    ``waiting`` entries have no seal yet: the next seal covers them.
    """

    verdicts: list[Verdict]
    places: list[Place]
    waiting: int

    @property
    def checkpoint_fault(self) -> str:
        return next((f"{each.name}: {each.fault}" for each in self.places if each.fault), "")

    @property
    def shown_fault(self) -> str:
        """The same for those who may not know where checkpoints are kept."""
        return next((f"{each.kind}: {each.fault}" for each in self.places if each.fault), "")

    @property
    def checkpoints(self) -> int:
        return max((each.checkpoints for each in self.places), default=0)

    @property
    def is_intact(self) -> bool:
        return not self.checkpoint_fault and all(verdict.is_intact for verdict in self.verdicts)


def verify(organization_id: UUID | None = None, *, far: bool = True) -> Report:
    """Check one organization's chain, or all of them, against the signed checkpoints.

    ``far`` also asks the places on other hosts. The order matters while writers are at work: what a
    place holds was in the database before, and what is signed was sealed before.
    """
    brought = delivery.delivered()
    asked = [(sink, _ask(sink, far=far)) for sink in sinks.configured()]
    lines = (row["line"] for row in walking.walk(AuditCheckpoint.objects.values(), "number"))
    own = checkpoints.examine(lines)
    places = [_place(sink, found, own=own, brought=brought) for sink, found in asked]
    places.append(Place(name="database", checkpoints=own.count, fault=own.why))
    known = _merge([own, *(found for _, found in asked if isinstance(found, Evidence))])
    wanted = [organization_id] if organization_id else sorted(_organizations(known), key=str)
    return Report(
        verdicts=[chain.verify(each, known=known.get(each)) for each in wanted],
        places=places,
        waiting=_waiting(organization_id),
    )


def _ask(sink: CheckpointSink, *, far: bool) -> Evidence | str:
    """What a place holds, or why that is not known."""
    if not sink.readable:
        return "it only receives"
    if not (far or sink.near):
        return "it is on another host; manage.py audit_verify asks it"
    try:
        return checkpoints.examine(sink.read())
    except SinkAway as error:
        return str(error)


def _place(
    sink: CheckpointSink, found: Evidence | str, *, own: Evidence, brought: Mapping[str, int]
) -> Place:
    if isinstance(found, str):
        return Place(name=sink.name, checkpoints=0, unread=found)
    fault = found.why or next(_differences(found, own), "")
    missing = brought.get(sink.name, 0) - found.count
    if not fault and missing > 0:
        fault = f"it ends at checkpoint {found.count}, but took {found.count + missing}"
    return Place(name=sink.name, checkpoints=found.count, fault=fault)


def _differences(found: Evidence, own: Evidence) -> Iterator[str]:
    """Where a place and the database's own copies tell different stories."""
    for number, digest in found.digests.items():
        if number not in own.digests:
            yield f"it holds checkpoint {number}, which the database has lost"
        elif own.digests[number] != digest:
            yield f"its checkpoint {number} is another one than the database's"


def _merge(all_evidence: Sequence[Evidence]) -> dict[UUID, dict[int, bytes]]:
    known: dict[UUID, dict[int, bytes]] = {}
    for evidence in all_evidence:
        for organization_id, hashes in evidence.hashes.items():
            known.setdefault(organization_id, {}).update(hashes)
    return known


def _waiting(organization_id: UUID | None) -> int:
    waiting = AuditInbox.objects.all()
    if organization_id:
        waiting = waiting.filter(entry__organization_id=organization_id)
    return waiting.count()


def _organizations(known: Mapping[UUID, object]) -> set[UUID]:
    return {*known, *AuditSeal.objects.values_list("organization_id", flat=True).distinct()}
