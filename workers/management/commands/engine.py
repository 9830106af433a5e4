from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand

from apps.core import telemetry
from workers.celery import app
from workers.engine.loop import Engine


class Command(BaseCommand):
    help = "Run an engine: one leads, the others stand by. Start two or more."

    def handle(self, *args: Any, **options: Any) -> None:
        telemetry.setup("engine")
        engine = Engine(app)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: engine.stop())
        engine.run()
