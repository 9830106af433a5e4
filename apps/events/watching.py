"""Watched tables, as a migration operation: a change to them needs an audit entry in its transaction."""

from __future__ import annotations

from django.db import migrations


def watched(table: str, *acts: str) -> migrations.RunSQL:
    """Refuse the commit of these acts (``INSERT``, ``UPDATE OF name``, …) without an audit entry.

    Name the columns that people decide; what changes by itself is left out. The migration depends on
    ``events.0005_watched_tables``, which made the function.
    """
    forward = "".join(
        f"CREATE CONSTRAINT TRIGGER audited_{number} AFTER {act} ON {table} "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();\n"
        for number, act in enumerate(acts)
    )
    backward = "".join(
        f"DROP TRIGGER audited_{number} ON {table};\n" for number in range(len(acts))
    )
    return migrations.RunSQL(forward, backward)
