from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from apps.identity.errors import FirstStartOver
from apps.identity.services import installation


class Command(BaseCommand):
    help = "Print a new activation code for the first start, while nobody owns this installation."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            code = installation.new_code()
        except FirstStartOver as error:
            self.stdout.write(json.dumps({"code": None}) if options["json"] else str(error))
            return
        if options["json"]:
            self.stdout.write(json.dumps({"code": code}))
            return
        self.stdout.write(f"Open         {settings.AOS_PUBLIC_URL}/start#{code}")
        self.stdout.write(f"or type it   {code}")
