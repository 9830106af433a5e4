from __future__ import annotations

from django.db import migrations

from apps.core.rowsecurity import READ, WRITE, owned, through


class Migration(migrations.Migration):
    dependencies = [("projects", "0001_initial"), ("events", "0004_row_security")]

    operations = [
        owned("projects_project", WRITE),
        through("projects_project", "projects_workspacefile", WRITE, column="project_id"),
        # Events know projects by value; this table of theirs has no column of its own for the tenant.
        through("projects_project", "events_stream", READ, column="project_id"),
    ]
