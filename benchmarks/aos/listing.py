"""Times the first page of the runs' list for readers of several kinds, in a database that it fills.

``python -m benchmarks.aos.listing ROWS BINDINGS COUNT`` prints milliseconds by reader as JSON.
``benchmarks.lists`` starts it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, Final
from uuid import UUID, uuid4

import django

django.setup()

# Models need settings first.
from django.db import connection, transaction  # noqa: E402

from apps.agents.models import Agent  # noqa: E402
from apps.core import tenancy  # noqa: E402
from apps.core.rest.pagination import KeysetPagination  # noqa: E402
from apps.identity.models import Binding, Department, Organization, User  # noqa: E402
from apps.identity.types import Role, Scope  # noqa: E402
from apps.projects.models import Project  # noqa: E402
from apps.runs.models import Run, RunQuerySet  # noqa: E402
from benchmarks.lists import UNFILTERED  # noqa: E402
from tests import factories  # noqa: E402

PROJECTS: Final = 1_000
AGENTS: Final = 50
PEOPLE: Final = 2_000
DEPARTMENTS: Final = 200
_FIXED: Final = {"public_id": "gen_random_uuid()", "project_id": "p.id", "agent_version_id": "v.id"}
_COPY: Final = """
INSERT INTO runs_run ({columns})
SELECT {values}
  FROM runs_run AS r, generate_series(1, %(rows)s) AS n
  JOIN (SELECT id, row_number() OVER () AS place FROM projects_project) AS p
    ON p.place = 1 + n::bigint * 7919 %% %(projects)s
  JOIN (SELECT id, row_number() OVER () AS place FROM agents_agentversion) AS v
    ON v.place = 1 + n::bigint * 104729 %% %(agents)s
"""


class Scene:
    """An organization with many runs, and many people and departments with a few roles each."""

    def __init__(self, *, rows: int, bindings: int) -> None:
        self.home = factories.make_organization()
        with factories.unwatched():
            self._people(bindings)
            self._runs(rows)
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")

    def _people(self, bindings: int) -> None:
        for _ in range(AGENTS):
            factories.make_agent(organization=self.home)
        self.agents = list(Agent.objects.values_list("pk", flat=True))
        self.projects = [
            made.pk
            for made in Project.objects.bulk_create(
                Project(organization=self.home, slug=f"p-{n}", name=f"Project {n}")
                for n in range(PROJECTS)
            )
        ]
        people = User.objects.bulk_create(
            User(organization=self.home, username=f"somebody-{n}") for n in range(PEOPLE)
        )
        departments = Department.objects.bulk_create(
            Department(organization=self.home, name=f"Department {n}") for n in range(DEPARTMENTS)
        )
        subjects = [
            *({"user": one} for one in people),
            *({"department": one} for one in departments),
        ]
        places = [(Scope.PROJECT, pk) for pk in self.projects]
        places += [(Scope.AGENT, pk) for pk in self.agents]
        pairs = random.Random(7).sample(range(len(subjects) * len(places)), bindings)  # noqa: S311 - no secret
        self._bind((subjects[pair // len(places)], *places[pair % len(places)]) for pair in pairs)

    def _runs(self, rows: int) -> None:
        project = Project.objects.get(pk=self.projects[0])
        factories.make_run(project=project, agent=Agent.objects.first())
        columns = [field.column for field in Run._meta.fields if field.column != "id"]
        values = [_FIXED.get(column, f"r.{column}") for column in columns]
        statement = _COPY.format(columns=", ".join(columns), values=", ".join(values))
        counts = {"rows": rows - 1, "projects": PROJECTS, "agents": AGENTS}
        with connection.cursor() as cursor:
            cursor.execute(statement, counts)

    def _bind(self, given: Any) -> None:
        Binding.objects.bulk_create(
            Binding(organization=self.home, role=Role.VIEWER, scope=scope, scope_id=pk, **subject)
            for subject, scope, pk in given
        )

    def reader(self, places: Sequence[tuple[Scope, UUID]], *, departments: int = 0) -> User:
        """A new person with these roles, their own or spread over some departments."""
        with factories.unwatched():
            user = factories.make_user(organization=self.home)
            subjects: list[dict[str, Any]] = [{"user": user}]
            if departments:
                made = Department.objects.bulk_create(
                    Department(organization=self.home, name=str(uuid4()))
                    for _ in range(departments)
                )
                user.departments.add(*made)
                subjects = [{"department": one} for one in made]
            self._bind(
                (subject, *place) for subject, place in zip(cycle(subjects), places, strict=False)
            )
        return user


def readers(scene: Scene, bindings: int) -> dict[str, User]:
    projects = [(Scope.PROJECT, pk) for pk in scene.projects]
    oldest = Run.objects.order_by("pk").values_list("public_id", flat=True)
    runs = [(Scope.RUN, pk) for pk in oldest]
    return {
        "viewer of the organization": scene.reader([(Scope.ORGANIZATION, scene.home.pk)]),
        "100 projects": scene.reader(projects[:100]),
        "100 projects, through 10 departments": scene.reader(projects[:100], departments=10),
        "one agent": scene.reader([(Scope.AGENT, scene.agents[0])]),
        "one project": scene.reader(projects[:1]),
        f"{bindings:,} runs here and there": scene.reader(runs[:: len(runs) // bindings]),
        f"the {bindings:,} oldest runs": scene.reader(runs[:bindings]),
        f"one project, and the {bindings:,} oldest runs": scene.reader(
            [*projects[:1], *runs[:bindings]]
        ),
        f"one agent, and {bindings:,} runs here and there": scene.reader(
            [(Scope.AGENT, scene.agents[0]), *runs[:: len(runs) // bindings]]
        ),
        "the oldest run": scene.reader(runs[:1]),
        "nothing": scene.reader([]),
    }


def page(runs: RunQuerySet) -> list[Run]:
    """The first page, as the API and the page of runs ask for it."""
    rows = runs.select_related("project", "agent_version__agent", "lease").defer(
        "spec", "trace", "agent_version__spec", "project__description"
    )
    return list(rows.newest(KeysetPagination.default_limit + 1))


def timed(ask: Callable[[], list[Run]], home: Organization, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        with tenancy.organization(home.pk), transaction.atomic():
            began = time.perf_counter()
            ask()
            taken.append((time.perf_counter() - began) * 1000)
    return taken


def main() -> None:
    rows, bindings, count = map(int, sys.argv[1:])
    scene = Scene(rows=rows, bindings=bindings)
    everything = Run.objects.filter(organization_id=scene.home.pk)
    asks: dict[str, Callable[[], list[Run]]] = {UNFILTERED: lambda: page(everything)}
    for name, user in readers(scene, bindings).items():
        asks[name] = lambda user=user: page(Run.objects.visible_to(user))  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(5):
        for name, ask in asks.items():
            taken[name] += timed(ask, scene.home, count // 5)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
