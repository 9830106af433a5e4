from __future__ import annotations

from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError

from apps.core.errors import AosError
from apps.identity.services import people


class Command(BaseCommand):
    help = (
        "Found an organization with its first owner. The password is asked for, or read from stdin."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", help="the organization's short name")
        parser.add_argument("--name", help="its full name")
        parser.add_argument("--owner", required=True, help="the owner's user name")
        parser.add_argument("--email", required=True)
        parser.add_argument("--stdin", action="store_true", help="read the password from stdin")

    def handle(self, *args: Any, **options: Any) -> None:
        password = self._password(from_stdin=options["stdin"])
        try:
            owner = people.found(
                slug=options["slug"],
                name=options["name"] or options["slug"],
                owner=options["owner"],
                email=options["email"],
                password=password,
            )
        except AosError as error:
            raise CommandError(str(error)) from error
        except IntegrityError as error:
            raise CommandError(f"There is already an organization {options['slug']!r}.") from error
        self.stdout.write(f"{owner.organization} is founded; {owner.username} owns it.")

    def _password(self, *, from_stdin: bool) -> str:
        """Never an argument: other users of the machine could read it."""
        if from_stdin:
            return input()
        password = getpass("Password: ")
        if password != getpass("Again: "):
            raise CommandError("The two passwords differ.")
        return password
