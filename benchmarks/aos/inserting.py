"""Times a bulk submission in parts, and ``COPY`` of the rows it wrote: ``python -m benchmarks.aos.inserting RUNS COUNT``.

Prints milliseconds by way of writing as JSON. ``benchmarks.bulk`` starts it.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import django

django.setup()

# Models need settings first.
from django.db import connection  # noqa: E402

from apps.core import sql, tenancy  # noqa: E402
from apps.identity.types import Role  # noqa: E402
from apps.runs.services import submission  # noqa: E402
from apps.runs.services.leadership import SQL  # noqa: E402
from apps.runs.services.submission import Wanted  # noqa: E402
from apps.runs.types import TaskSpec  # noqa: E402
from benchmarks.bulk import COPIED, REQUEST, SERVICE, SINGLE, STATEMENT  # noqa: E402
from tests import factories  # noqa: E402
from tests.faces import api  # noqa: E402

# What a submission writes, parents first. The runs' key orders the rest.
TABLES: Final = {
    "runs_run": "organization_id = %s",
    "runs_ready": "run_id IN (SELECT id FROM runs_run WHERE organization_id = %s)",
    "runs_event": "run_id IN (SELECT id FROM runs_run WHERE organization_id = %s)",
    "events_outboxentry": "organization_id = %s",
}
# Single submissions take long: so many are made, and their time is scaled up.
_SINGLES: Final = 50


class Scene:
    """An organization that submits many runs of a function that takes any input."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.project = factories.make_project()
        self.home = self.project.organization_id
        self.by = factories.make_actor(Role.OPERATOR, organization=self.project.organization)
        self.agent = factories.make_agent(
            organization=self.project.organization, spec={"function": "aos.echo"}, kind="function"
        )
        self.client = api(self.by.user)
        _bypass_row_security()

    # --- the ways of writing ----------------------------------------------------------------------

    def by_request(self) -> None:
        """What a program waits for, except the network."""
        task = {"project": self.project.slug, "agent": self.agent.slug, "input": {"text": "Hello"}}
        answer = self.client.post(
            "/api/runs/bulk",
            {"runs": [task] * self.number},
            headers={"Idempotency-Key": uuid.uuid4().hex},
        )
        if answer.json().get("accepted") != self.number:
            raise RuntimeError(f"HTTP {answer.status_code}: {answer.content.decode()[:500]}")

    def by_service(self) -> None:
        """The call in there: everything that is checked and written, behind row security."""
        task = TaskSpec(input={"text": "Hello"})
        wanted = [Wanted(project=self.project, agent=self.agent, task=task)] * self.number
        with tenancy.organization(self.home):
            submission.submit_bulk(by=self.by, wanted=wanted, key=uuid.uuid4().hex, body=None)

    def one_by_one(self) -> None:
        for _ in range(_SINGLES):
            with tenancy.organization(self.home):
                submission.submit(
                    by=self.by,
                    project=self.project,
                    agent=self.agent,
                    task=TaskSpec(input={"text": "Hello"}),
                )

    # --- and COPY ---------------------------------------------------------------------------------

    def take_out(self) -> dict[str, bytes]:
        """The rows of the last submission as COPY writes them, and none of them left in the tables."""
        with connection.cursor() as cursor:
            rows = {
                table: _copy_out(cursor, table, where % f"'{self.home}'")
                for table, where in TABLES.items()
            }
        self.clear()
        return rows

    def copy_in(self, rows: dict[str, bytes]) -> None:
        with factories.unwatched(), connection.cursor() as cursor:
            for table, text in rows.items():
                with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                    copy.write(text)

    def clear(self) -> None:
        with factories.unwatched(), connection.cursor() as cursor:
            for table, where in reversed(TABLES.items()):
                cursor.execute(f"DELETE FROM {table} WHERE {where}", [self.home])  # noqa: S608 - our own names


def _copy_out(cursor: Any, table: str, where: str) -> bytes:
    statement = f"COPY (SELECT * FROM {table} WHERE {where} ORDER BY 1) TO STDOUT"  # noqa: S608 - our own names
    with cursor.copy(statement) as copy:
        return b"".join(bytes(part) for part in copy)


def _bypass_row_security() -> None:
    """PostgreSQL takes no COPY into a table whose policies hold for who copies, and here they hold for owners."""
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")


@contextmanager
def statement(taken: list[float]) -> Iterator[None]:
    """Note what the statement takes that stores the runs."""
    plain = sql.fetch

    def timed(query: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        began = time.perf_counter()
        rows = plain(query, params)
        if query == SQL["accept"]:
            taken.append((time.perf_counter() - began) * 1000)
        return rows

    sql.fetch = timed
    try:
        yield
    finally:
        sql.fetch = plain


def milliseconds(act: Any, *given: Any) -> float:
    began = time.perf_counter()
    act(*given)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    number, count = map(int, sys.argv[1:])
    scene = Scene(number)
    taken: dict[str, list[float]] = {
        name: [] for name in (COPIED, STATEMENT, SERVICE, REQUEST, SINGLE)
    }
    for _ in range(count + 2):
        with statement(taken[STATEMENT]):
            taken[SERVICE].append(milliseconds(scene.by_service))
        rows = scene.take_out()
        taken[COPIED].append(milliseconds(scene.copy_in, rows))
        scene.clear()
        taken[REQUEST].append(milliseconds(scene.by_request))
        scene.clear()
        taken[SINGLE].append(milliseconds(scene.one_by_one) * number / _SINGLES)
        scene.clear()
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE runs_run, runs_ready, runs_event, events_outboxentry")
    # The first two meet cold caches and plans that are not made.
    print(json.dumps({name: times[2:] for name, times in taken.items()}))


if __name__ == "__main__":
    main()
