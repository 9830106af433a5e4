"""Empties the database after a test that commits, also while real processes still read from it.

Django's own way locks every table there is, announces a migration, and gives up when a page that is
still being rendered holds one of the locks: its rows then meet the next test.
"""

from __future__ import annotations

from functools import cache

from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected

from apps.core import tenancy

_ATTEMPTS = 10
# What the migrations have made, and pages may not make anew.
_KEPT = {"django_content_type", "auth_permission"}


def empty_tables(_: object = None) -> None:
    """Empty each table that has rows; takes the place of ``TransactionTestCase._fixture_teardown``."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _empty_tables()
        except OperationalError as error:
            if attempt == _ATTEMPTS or not isinstance(error.__cause__, DeadlockDetected):
                raise
        else:
            return


def _empty_tables() -> None:
    with tenancy.platform(), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_tables_with_rows())
        if filled := [name for (name,) in cursor]:
            cursor.execute(f"TRUNCATE {', '.join(filled)} CASCADE")


@cache
def _tables_with_rows() -> str:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    return " UNION ALL ".join(
        f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table})"  # noqa: S608  # names of ours
        for table in sorted(set(tables) - _KEPT)
    )
