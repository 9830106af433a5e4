from __future__ import annotations

from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import AosError
from apps.identity.models import User
from apps.identity.services import passwords


class Command(BaseCommand):
    help = (
        "Set a person's password and sign them out everywhere, on record. It is asked for, or read "
        "from stdin. (Django's changepassword leaves no record, so the database refuses it.)"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--stdin", action="store_true", help="read the password from stdin")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']!r}.")
        new = input() if options["stdin"] else getpass("New password: ")
        if not options["stdin"] and new != getpass("Again: "):
            raise CommandError("The two passwords differ.")
        try:
            passwords.reset(user=user, new=new)
        except AosError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{user.username} has a new password and is signed out everywhere.")
