"""``manage.py sandbox doctor``: whether this host can run sandboxes, and what to do when not."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.sandboxes.types import EgressMode
from workers.sandbox import driver_from_settings, profiles_from_settings
from workers.sandbox.base import Finding
from workers.sandbox.errors import SandboxError


class Command(BaseCommand):
    help = "Look at what sandboxes need on this host, and try one."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("doctor", help="Examine this host; exit code 1 when sandboxes cannot run.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            findings = list(self._examined())
        except SandboxError as error:
            raise CommandError(str(error)) from error
        for finding in findings:
            self._tell(finding)
        wrong = sum(finding.is_error for finding in findings)
        if wrong:
            raise CommandError(f"{wrong} of these must be put right before sandboxes can run.")
        self.stdout.write("Sandboxes can run on this host.")

    def _examined(self) -> list[Finding]:
        driver = driver_from_settings()
        try:
            if driver.name != "docker":
                return driver.check(image=settings.AOS_SANDBOX_IMAGE)
            # Here, so that a host without Docker never loads its client.
            from workers.sandbox import doctor

            most = EgressMode(settings.AOS_SANDBOX_EGRESS)
            return list(doctor.examine(driver, profiles_from_settings(), most_egress=most))
        finally:
            driver.close()

    def _tell(self, finding: Finding) -> None:
        word = "error  " if finding.is_error else "warning"
        self.stdout.write(f"{word}  {finding.code}: {finding.message}")
        self.stdout.write(f"         {finding.hint}")
