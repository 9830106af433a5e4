from __future__ import annotations

from django.db import migrations

from apps.core.rowsecurity import ADD, READ, WRITE, grant, owned, through


def of_run(table: str, acts: tuple[str, ...]) -> migrations.RunSQL:
    return through("runs_run", table, acts, column="run_id")


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0002_sequences_and_transitions"),
        ("events", "0004_row_security"),
    ]

    operations = [
        owned("runs_run", ("SELECT", "INSERT", "UPDATE")),
        owned("runs_lane", ("SELECT", "INSERT", "UPDATE")),
        owned("runs_idempotencykey", WRITE),
        of_run("runs_ready", WRITE),
        of_run("runs_scheduled", WRITE),
        of_run("runs_lease", ("SELECT", "UPDATE", "DELETE")),
        of_run("runs_attempt", ("SELECT", "INSERT", "UPDATE")),
        of_run("runs_event", ADD),
        of_run("runs_artifact", READ),
        # Machines serve every organization; who leads is nobody's secret.
        grant("runs_worker", ("SELECT", "UPDATE")),
        grant("runs_leader", READ),
        migrations.RunSQL(
            "GRANT USAGE ON SEQUENCE runs_ready_seq TO aos_app",
            "REVOKE USAGE ON SEQUENCE runs_ready_seq FROM aos_app",
        ),
    ]
