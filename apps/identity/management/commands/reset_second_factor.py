from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.errors import AosError
from apps.identity.models import User
from apps.identity.services import second_factor


class Command(BaseCommand):
    help = (
        "Take a person's second factor away and sign them out everywhere, on record. For the last owner "
        "who has lost the app and the recovery codes; an admin does it for everybody else, on Access."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']!r}.")
        try:
            second_factor.reset_from_shell(user=user)
        except AosError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{user.username} signs in with the password alone until they set up an app again."
        )
