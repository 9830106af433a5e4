from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.events.services import proof
from apps.events.services.chain import Verdict
from apps.events.services.proof import Place


class Command(BaseCommand):
    help = "Recompute every audit chain and name the first entry that was tampered with."

    def handle(self, *args: Any, **options: Any) -> None:
        report = proof.verify()
        for verdict in report.verdicts:
            self._tell_of_chain(verdict)
        for place in report.places:
            self._tell_of_place(place)
        if report.waiting:
            self.stdout.write(f"{report.waiting} entries wait for their seal")
        if not report.is_intact:
            raise CommandError("The audit log was tampered with, or part of it is missing.")

    def _tell_of_chain(self, verdict: Verdict) -> None:
        told = verdict.why or "intact"
        place = f" [place {verdict.seq}, entry {verdict.entry_id}]" if verdict.why else ""
        self.stdout.write(
            f"{verdict.organization_id}: {verdict.checked} entries checked, {told}{place}"
        )
        if verdict.advice:
            self.stdout.write(f"  {verdict.advice}")

    def _tell_of_place(self, place: Place) -> None:
        if place.unread:
            self.stdout.write(f"{place.name}: not compared: {place.unread}")
            return
        self.stdout.write(
            f"{place.name}: {place.checkpoints} checkpoints, {place.fault or 'intact'}"
        )
