"""Runs of both kinds, submitted by a client that tries again when the platform is away."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import InterfaceError, OperationalError, connection

from apps.agents.models import Agent
from apps.core import clock
from apps.identity.actor import Actor
from apps.projects.models import Project
from apps.runs.services import submission
from apps.runs.types import TaskSpec
from tests.factories import make_actor, make_agent, make_project

SCRIPT: Final = {
    "entry": "main.py",
    "files": {
        "main.py": """
import json, os, time
given = json.load(open(os.environ["AOS_IN"] + "/input.json"))
for step in range(3):
    print("step", step, flush=True)
    time.sleep(given["for_s"] / 3)
open(os.environ["AOS_OUT"] + "/number.txt", "w").write(str(given["number"]))
print("::aos " + json.dumps({"type": "result", "summary": "Done.", "facts": {"number": given["number"]}}), flush=True)
"""
    },
    "artifacts": ["number.txt"],
}
# Tried again until they succeed: what is proved is that they end, not that they give up.
RETRY: Final = {"max_attempts": 50, "base_s": 0.1, "max_s": 1, "retry_on": ["function_failed"]}
# Of a hundred runs, how many are scripts, start later, and start children and fail at their first attempt.
SCRIPTS, LATER, FAILING = 5, 3, 2
CHILDREN: Final = 2


@dataclass
class Client:
    by: Actor
    project: Project
    functions: Agent
    scripts: Agent
    dice: random.Random
    accepted: set[int] = field(default_factory=set)
    submitted: int = 0

    def submit(self, count: int) -> None:
        """Submit runs; return when all were accepted."""
        scripts = sum(self._chance(SCRIPTS) for _ in range(count))
        self.offer(self.scripts, [self._task() for _ in range(scripts)])
        tasks = [self._task(**self._perhaps_parent()) for _ in range(count - scripts)]
        self.offer(self.functions, tasks)

    def submit_each_kind(self) -> None:
        """A script, functions, one that starts children and fails at first, one that starts later."""
        self.offer(self.scripts, [self.task(for_s=0.3)])
        plain = [self.task(for_s=0.1), self.task(**self._failing_parent())]
        self.offer(self.functions, [*plain, replace(self.task(), run_at=_soon(0.3))])

    def offer(self, agent: Agent, tasks: Sequence[TaskSpec]) -> None:
        if tasks:
            self.accepted |= _insist(self.by, self.project, agent, tasks)

    def task(self, **given: Any) -> TaskSpec:
        self.submitted += 1
        return TaskSpec(input={"number": self.submitted, "for_s": 0} | given, retry=RETRY)

    def _task(self, **more: Any) -> TaskSpec:
        given = {"for_s": self.dice.choice([0, 0, 0.02, 0.3, 1])} | more
        run_at = _soon(self.dice.random()) if self._chance(LATER) else None
        return replace(self.task(**given), run_at=run_at)

    def _perhaps_parent(self) -> dict[str, Any]:
        return self._failing_parent() if self._chance(FAILING) else {}

    def _failing_parent(self) -> dict[str, Any]:
        return {"children": CHILDREN, "agent": self.functions.slug, "fails_first": True}

    def _chance(self, percent: float) -> bool:
        return self.dice.random() * 100 < percent


def _soon(seconds: float) -> datetime:
    return clock.now() + timedelta(seconds=seconds)


def client(dice: random.Random) -> Client:
    project = make_project()
    home = {"organization": project.organization}
    return Client(
        by=make_actor(**home),
        project=project,
        functions=make_agent(**home, kind="function", spec={"function": "test.work"}),
        scripts=make_agent(**home, spec=SCRIPT),
        dice=dice,
    )


def _insist(by: Actor, project: Project, agent: Agent, tasks: Sequence[TaskSpec]) -> set[int]:
    """What a client does whose request found the database away: ask again.

    The answer to a commit may be lost with the connection. Then the runs were made twice, which the
    reckoning counts as more runs than were accepted, and holds to the same rules.
    """
    give_up = time.monotonic() + 60
    while True:
        try:
            made = submission.submit_many(by=by, project=project, agent=agent, tasks=tasks)
        except (OperationalError, InterfaceError):
            connection.close()
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)
        else:
            return {run.pk for run in made}
