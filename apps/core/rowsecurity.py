"""Row security of a table, as migration operations.

A table that holds organizations' rows gets two policies: the login that migrates (the platform's own,
which owns the tables) sees all of them, and ``aos_app`` sees those of the organization that its
transaction names. FORCE makes policies hold for the owner too, so a table without one shows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import ProgrammingError, migrations
from psycopg.errors import InsufficientPrivilege

from apps.core.postgres.base import ROLE, SETTING

READ: Final = ("SELECT",)
ADD: Final = ("SELECT", "INSERT")
WRITE: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

# A scalar subquery: the planner works it out once, and may look it up in an index.
_VIEWER: Final = f"(SELECT nullif(current_setting('{SETTING}', true), '')::uuid)"

# The role belongs to the whole server: another database of it may have made it already.
_MAKE_ROLE: Final = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
        CREATE ROLE {ROLE} NOLOGIN;
    END IF;
    IF NOT pg_has_role(current_user, '{ROLE}', 'MEMBER') THEN
        EXECUTE format('GRANT {ROLE} TO %I', current_user);
    END IF;
END $$
"""


def make_role(_apps: Any, schema_editor: Any) -> None:
    """Make the role of web requests. Raises ``ImproperlyConfigured`` with the SQL to run by hand."""
    login = schema_editor.connection.settings_dict["USER"]
    try:
        schema_editor.execute(_MAKE_ROLE, params=None)
    except ProgrammingError as error:
        if not isinstance(error.__cause__, InsufficientPrivilege):
            raise
        raise ImproperlyConfigured(
            f"AOS needs the database role {ROLE}, which {login} may not create. As an administrator "
            f"of the server: CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO {login}; then migrate again."
        ) from error
    schema_editor.execute(f"GRANT USAGE ON SCHEMA public TO {ROLE}")


def role() -> migrations.RunPython:
    return migrations.RunPython(make_role, migrations.RunPython.noop)


def grant(table: str, acts: Sequence[str]) -> migrations.RunSQL:
    """Let web requests do these acts on a table that holds no organization's rows."""
    return migrations.RunSQL(
        f"GRANT {', '.join(acts)} ON {table} TO {ROLE}", f"REVOKE ALL ON {table} FROM {ROLE}"
    )


def owned(table: str, acts: Sequence[str], *, column: str = "organization_id") -> migrations.RunSQL:
    """Secure a table by the column that names the organization."""
    return _secure(table, acts, f"{column} = {_VIEWER}")


def through(parent: str, table: str, acts: Sequence[str], *, column: str) -> migrations.RunSQL:
    """Secure a table whose rows are shown exactly where the row of ``parent`` is that they name."""
    return _secure(
        table, acts, f"EXISTS (SELECT FROM {parent} parent WHERE parent.id = {table}.{column})"
    )


def _secure(table: str, acts: Sequence[str], condition: str) -> migrations.RunSQL:
    forward = f"""
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY platform ON {table} TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY organization ON {table} TO {ROLE} USING ({condition}) WITH CHECK ({condition});
GRANT {", ".join(acts)} ON {table} TO {ROLE};
"""
    backward = f"""
REVOKE ALL ON {table} FROM {ROLE};
DROP POLICY organization ON {table};
DROP POLICY platform ON {table};
ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;
ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;
"""
    return migrations.RunSQL(forward, backward)
