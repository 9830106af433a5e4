"""``manage.py images``: build the sandbox images, see which are up to date."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from workers.sandbox import images
from workers.sandbox.errors import SandboxError


class Command(BaseCommand):
    help = "Build the sandbox images, or list them."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        build = verbs.add_parser("build", help="Build an image unless it is up to date.")
        build.add_argument("name", nargs="?", default="", help="an image folder; all by default")
        build.add_argument(
            "--offline-base",
            action="store_true",
            help="make the base from Debian packages, without a registry (needs root)",
        )
        build.add_argument("--force", action="store_true", help="build it again, base included")
        verbs.add_parser("list", help="Show each image and whether it is up to date.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["verb"] == "list":
                self._list()
            else:
                self._build(options)
        except SandboxError as error:
            raise CommandError(str(error)) from error

    def _build(self, options: dict[str, Any]) -> None:
        for name in [options["name"]] if options["name"] else images.names():
            built = images.build(
                name,
                progress=self.stdout.write,
                offline_base=options["offline_base"],
                force=options["force"],
            )
            self.stdout.write(f"{built.tag} {'is built' if built.is_new else 'is up to date'}.")

    def _list(self) -> None:
        for name in images.names():
            state = images.state(name)
            words = "up to date" if state.is_current else "out of date"
            told = f"{words}, on {state.base}" if state.is_built else "not built"
            exact = f"{state.digest[:19]} {state.size / 1e6:.0f} MB, " if state.is_built else ""
            self.stdout.write(f"{name:<6} {state.tag:<26} {exact}{told}")
