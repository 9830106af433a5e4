"""Submits one run under a key, as a process that can be struck: ``python -m tests.chaos.submitter``.

Prints the run's key; ends with 3 when it should be asked again.
"""

from __future__ import annotations

import sys

import django

django.setup()

# ruff: noqa: E402  # models need the set-up above
from django.db import OperationalError

from apps.agents.models import Agent
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.projects.models import Project
from apps.runs.errors import KeyBusy
from apps.runs.services import submission
from apps.runs.types import TaskSpec


def main(user: str, project: str, agent: str, key: str) -> int:
    try:
        made = submission.submit(
            by=Actor(user=User.objects.get(pk=user)),
            project=Project.objects.get(pk=project),
            agent=Agent.objects.get(pk=agent),
            task=TaskSpec(input={"number": 1, "for_s": 0}),
            key=key,
        )
    except (KeyBusy, OperationalError):
        return 3
    print(made.run.pk)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
