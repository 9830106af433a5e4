from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.agents.services import examples


class Command(BaseCommand):
    help = "Make the demo organization, its people, project and example agents."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--reset-passwords", action="store_true", help="give everybody a new password"
        )
        parser.add_argument("--json", action="store_true", help="print all of it as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        made = examples.seed(reset_passwords=options["reset_passwords"])
        if options["json"]:
            self.stdout.write(json.dumps(made))
            return
        for user in made["users"]:
            self.stdout.write(
                f"{user['role']:<10} {user['username']:<10} {user['password'] or '(as before)'}"
            )
        self.stdout.write(f"{'token':<10} {made['token']}")
