"""``manage.py contents``: what the store of files holds, and the removal of what nobody needs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from apps.core import blobs
from apps.core.errors import AosError
from apps.runs.services import contents


class Command(BaseCommand):
    help = "Show what the store of files holds, or remove what nothing refers to any more."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("show", help="Count the stored contents, and those nobody refers to.")
        verbs.add_parser("prune", help="Remove those, if they are a day old.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["verb"] == "show":
                self._show()
            else:
                self._prune()
        except AosError as error:
            raise CommandError(str(error)) from error

    def _show(self) -> None:
        found = contents.usage()
        self.stdout.write(blobs.configured().name)
        self.stdout.write(f"{found.count} contents, {_size(found.size)}")
        self.stdout.write(
            f"{found.unreferred_count} of them, {_size(found.unreferred_size)}, are referred to by nothing"
        )

    def _prune(self) -> None:
        removed = contents.remove_unreferred()
        self.stdout.write(f"{removed.count} contents removed, {_size(removed.size)}")


def _size(count: int) -> str:
    return filesizeformat(count).replace("\xa0", " ")
