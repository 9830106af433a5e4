"""Fills the tables with ended runs: ``python -m benchmarks.aos.history --runs 1000000``.

Copies of one run that has really ended, with its attempt, the lines of its log and its value events. Years
of use in a minute; what guards the birth of runs is switched off meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final

import django

django.setup()

# Models can be imported only once Django is set up.
from django.db import connection  # noqa: E402

from apps.events.models import Event  # noqa: E402
from apps.events.types import EventType  # noqa: E402
from apps.runs.models import Attempt, Run, RunEvent  # noqa: E402

_AT_ONCE: Final = 50_000


def fill(number: int) -> None:
    model = Run.objects.filter(state="succeeded").latest("pk")
    last = Event.objects.filter(project_id=model.project_id).latest("seq").seq
    first = model.pk + 1_000_000
    # A run's id by its number: its receipt must name it and no other.
    named = f"md5('{model.pk} ' || n)::uuid"
    tables: dict[str, tuple[str, dict[str, str]]] = {
        Run._meta.db_table: (
            f"id = {model.pk}",
            {"id": f"{first} + n", "public_id": named, "trace_id": "md5(n::text)"},
        ),
        Attempt._meta.db_table: (f"run_id = {model.pk}", {"run_id": f"{first} + n"}),
        RunEvent._meta.db_table: (f"run_id = {model.pk}", {"run_id": f"{first} + n"}),
        Event._meta.db_table: (
            f"run_id = '{model.public_id}'",
            {
                "event_id": "gen_random_uuid()",
                "run_id": named,
                "seq": f"{last + 1} + 2 * n + (type = '{EventType.RECEIPT}')::int",
            },
        ),
    }
    with connection.cursor() as cursor:
        for table, (chosen, changed) in tables.items():
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            statement = _copy(table, chosen, changed)
            for start in range(0, number, _AT_ONCE):
                cursor.execute(statement, [start, min(number, start + _AT_ONCE) - 1])
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
            cursor.execute(f"VACUUM (ANALYZE) {table}")


def _copy(table: str, chosen: str, changed: Mapping[str, str]) -> str:
    """The statement that copies the chosen rows, all columns as they are but the changed ones."""
    with connection.cursor() as cursor:
        described = connection.introspection.get_table_description(cursor, table)
    generated = {"id"} - changed.keys()
    names = [column.name for column in described if column.name not in generated]
    values = [changed.get(name, f'm."{name}"') for name in names]
    columns = ", ".join(f'"{name}"' for name in names)
    return (
        f"INSERT INTO {table} ({columns}) SELECT {', '.join(values)}"  # noqa: S608  # our own names
        f" FROM {table} AS m, generate_series(%s::bigint, %s::bigint) AS n WHERE m.{chosen}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    fill(parser.parse_args().runs)


if __name__ == "__main__":
    main()
