from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import AosError
from apps.identity.models import Proposal
from apps.identity.services import proposals


class Command(BaseCommand):
    help = (
        "List what waits for a second person, or agree to it as the operator of the machine, where "
        "no other owner can."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--accept", metavar="ID", help="agree to this proposal, on record")
        parser.add_argument("--why", default="", help="kept in the audit log; needed to agree")

    def handle(self, *args: Any, **options: Any) -> None:
        waiting = Proposal.objects.waiting().select_related("user", "requested_by", "organization")
        if options["accept"]:
            self._accept(options["accept"], options["why"])
            return
        for each in waiting.order_by("created_at"):
            line = f"{each.pk}  {each.organization}: {each} (by {each.requested_by})"
            self.stdout.write(f"{line}  {each.reason}".rstrip())

    def _accept(self, ref: str, why: str) -> None:
        if not why.strip():
            raise CommandError("Say --why: it is kept in the audit log.")
        try:
            found = Proposal.objects.filter(pk=ref).first()
        except ValidationError:
            found = None
        if found is None:
            raise CommandError(f"There is no proposal {ref!r}.")
        try:
            done = proposals.accept_from_shell(proposal=found, why=why.strip()[:200])
        except AosError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{done.user} is an owner of {done.organization} now.")
