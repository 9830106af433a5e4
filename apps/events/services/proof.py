"""The whole answer to "was the audit log changed?": chains and checkpoints together."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from apps.events.models import AuditSeal
from apps.events.services import chain, checkpoints
from apps.events.services.chain import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One verdict per organization, and what is wrong with the checkpoints, if anything is."""

    verdicts: list[Verdict]
    checkpoints: int
    checkpoint_fault: str

    @property
    def is_intact(self) -> bool:
        return not self.checkpoint_fault and all(verdict.is_intact for verdict in self.verdicts)


def verify(organization_id: UUID | None = None) -> Report:
    """Check one organization's chain, or all of them, against the signed checkpoints."""
    evidence = checkpoints.read()
    known = set(evidence.hashes) | set(
        AuditSeal.objects.values_list("organization_id", flat=True).distinct()
    )
    wanted = {organization_id} if organization_id else known
    verdicts = [
        chain.verify(each, known=evidence.hashes.get(each)) for each in sorted(wanted, key=str)
    ]
    return Report(verdicts=verdicts, checkpoints=evidence.count, checkpoint_fault=evidence.why)
