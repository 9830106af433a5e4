"""What a person with the database's password can do."""

from __future__ import annotations

from django.db import connection


def by_hand(statement, **params):
    """Switch the triggers of the audit tables off, write, and switch them on again."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("events_auditentry", "events_auditseal", "events_auditcheckpoint"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(statement, params)
        for table in ("events_auditentry", "events_auditseal", "events_auditcheckpoint"):
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
