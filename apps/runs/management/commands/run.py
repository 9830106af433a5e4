from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.agents.models import Agent
from apps.core.errors import AosError
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.projects.models import Project
from apps.projects.services import files
from apps.runs.models import Run, RunEvent
from apps.runs.services import inputs, journal, submission
from apps.runs.types import EventKind, RunState, TaskSpec

_LOOK_EVERY_S = 0.2


class Command(BaseCommand):
    help = "Submit a run from the shell, as a person who may."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("agent", help="the agent's slug")
        parser.add_argument("--input", type=Path, help="a .json input, or a file for the agent")
        parser.add_argument("--project", default="playground", help="the project's slug")
        parser.add_argument("--as", dest="username", default="oscar", help="who submits")
        parser.add_argument("--follow", action="store_true", help="print the log until the end")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run = self._submit(options)
        except (AosError, OSError, ValueError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"run {run.public_id} accepted, trace {run.trace_id}")
        if options["follow"]:
            self._follow(run)

    def _submit(self, options: dict[str, Any]) -> Run:
        by = Actor(user=self._find(User.objects.all(), "user", username=options["username"]))
        project = self._find(
            Project.objects.visible_to(by.user), "project", slug=options["project"]
        )
        agent = self._find(
            Agent.objects.visible_to(by.user).select_related("current"),
            "agent",
            slug=options["agent"],
        )
        value = self._input(by, project, agent, options["input"])
        return submission.submit(
            by=by, project=project, agent=agent, task=TaskSpec(input=value)
        ).run

    def _find(self, rows: Any, what: str, **wanted: str) -> Any:
        row = rows.filter(**wanted).first()
        if row is None:
            raise CommandError(f"There is no {what} {next(iter(wanted.values()))!r}.")
        return row

    def _input(self, by: Actor, project: Project, agent: Agent, path: Path | None) -> Any:
        """A JSON file is the input; any other file is uploaded and named in it."""
        if path is None:
            return {}
        if path.suffix == ".json":
            return json.loads(path.read_text("utf-8"))
        field = inputs.file_field(agent.current.spec if agent.current else {})
        if field is None:
            raise CommandError(f"The agent {agent.slug!r} takes no file; give it a .json input.")
        file = files.put(by=by, project=project, name=path.name, chunks=[path.read_bytes()])
        return {field: file.name}

    def _follow(self, run: Run) -> None:
        seen = 0
        while True:
            # Asked before the page is read: what was written until the end is then in the page.
            run.refresh_from_db()
            lines = journal.page(run, after=seen, limit=500)
            for line in lines:
                self.stdout.write(_told(line))
                seen = line.seq
            if run.is_over and not lines:
                break
            time.sleep(_LOOK_EVERY_S)
        for artifact in run.artifacts.all():
            self.stdout.write(f"  {artifact.name}  {artifact.size} bytes  {artifact.sha256}")
        if run.state != RunState.SUCCEEDED:
            raise CommandError(f"The run ended {run.state}: {(run.error or {}).get('detail', '')}")


def _told(line: RunEvent) -> str:
    payload = line.payload
    if line.kind == EventKind.LOG:
        return f"{payload['level']:<5} {payload['text']}"
    if line.kind == EventKind.MESSAGE:
        share = payload.get("progress")
        return f"  {'' if share is None else f'{share:4.0%} '}{payload['title']}"
    if line.kind == EventKind.RUN:
        return f"== {payload['state']}"
    return f"  {line.kind}"
