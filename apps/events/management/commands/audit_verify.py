from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.events.services import proof


class Command(BaseCommand):
    help = "Recompute every audit chain and name the first entry that was tampered with."

    def handle(self, *args: Any, **options: Any) -> None:
        report = proof.verify()
        for verdict in report.verdicts:
            told = verdict.why or "intact"
            place = f" at place {verdict.seq} (entry {verdict.entry_id})" if verdict.why else ""
            self.stdout.write(
                f"{verdict.organization_id}: {verdict.checked} entries checked, {told}{place}"
            )
        self.stdout.write(
            f"{report.checkpoints} checkpoints: {report.checkpoint_fault or 'intact'}"
        )
        if not report.is_intact:
            raise CommandError("The audit log was tampered with, or part of it is missing.")
