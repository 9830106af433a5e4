"""How long each organization keeps its ended runs; no removal of a run without an audit entry."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q

import apps.core.models
from apps.core.rowsecurity import WRITE, owned
from apps.events.watching import watched

FORWARD = """
CREATE CONSTRAINT TRIGGER audited_removal AFTER DELETE ON runs_run
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();
"""
BACKWARD = """
DROP TRIGGER audited_removal ON runs_run;
"""


class Migration(migrations.Migration):
    dependencies = [("events", "0005_watched_tables"), ("runs", "0017_budgets")]

    operations = [
        migrations.CreateModel(
            name="Retention",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.models.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("organization_id", models.UUIDField(unique=True)),
                ("run_days", models.PositiveIntegerField()),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=Q(run_days__lte=36_500), name="runs_retention_within_a_century"
                    )
                ]
            },
        ),
        owned("runs_retention", WRITE),
        watched("runs_retention", "INSERT", "UPDATE OF run_days", "DELETE"),
        # A run that goes is looked for in here: without an index, in the whole table for each.
        migrations.AddIndex(
            "waitingrun",
            models.Index(
                fields=["cause"],
                name="runs_waiting_of_cause",
                condition=Q(cause__isnull=False),
            ),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
