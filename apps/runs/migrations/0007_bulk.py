"""Acts on many runs, and answers about many that can be said again."""

from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import apps.core.models
from apps.core.rowsecurity import owned
from apps.events.watching import watched

# Spelt out, not imported from types.py: tests/db/runs/test_bulk.py compares the two.
TRANSITIONS = {
    "working": ("tried", "done", "stopped"),
    "tried": ("working", "stopped"),
}
_ALLOWED = ", ".join(
    f"('{old}', '{new}')" for old, targets in TRANSITIONS.items() for new in targets
)

FORWARD = f"""
CREATE FUNCTION runs_bulk_check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state, NEW.state) NOT IN ({_ALLOWED}) THEN
        RAISE EXCEPTION 'a bulk act cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_bulk_transition';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_bulk_transition BEFORE UPDATE OF state ON runs_bulk
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION runs_bulk_check_transition();
"""
BACKWARD = """
DROP TRIGGER runs_bulk_transition ON runs_bulk;
DROP FUNCTION runs_bulk_check_transition();
"""
VERBS = [("cancel", "cancel"), ("rerun", "re-run")]
STATES = [
    ("working", "at work"),
    ("tried", "tried on a few"),
    ("done", "done"),
    ("stopped", "stopped"),
]


class Migration(migrations.Migration):
    dependencies = [
        ("events", "0005_watched_tables"),
        ("projects", "0002_row_security"),
        ("runs", "0006_contents"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="idempotencykey", name="answer", field=models.JSONField(null=True)
        ),
        migrations.CreateModel(
            name="BulkAct",
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
                ("organization_id", models.UUIDField()),
                ("verb", models.CharField(choices=VERBS, max_length=8)),
                ("wanted", models.JSONField()),
                ("state", models.CharField(choices=STATES, default="working", max_length=8)),
                ("matched", models.PositiveIntegerField()),
                ("canary", models.PositiveIntegerField(null=True)),
                ("upto", models.BigIntegerField()),
                ("after", models.BigIntegerField(default=0)),
                ("done", models.PositiveIntegerField(default=0)),
                ("refused", models.PositiveIntegerField(default=0)),
                ("refusals", models.JSONField(default=list)),
                ("stop_reason", models.CharField(blank=True, max_length=200)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "project",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="projects.project",
                    ),
                ),
                (
                    "asked_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "runs_bulk",
                "ordering": ["-id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(state__in=("working", "tried"), finished_at=None)
                        | models.Q(state__in=("done", "stopped"), finished_at__isnull=False),
                        name="runs_bulk_finished_iff_over",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(after__lte=models.F("upto")),
                        name="runs_bulk_stays_below_upto",
                    ),
                ],
                "indexes": [
                    models.Index(
                        condition=models.Q(state="working"),
                        fields=["updated_at"],
                        name="runs_bulk_at_work",
                    ),
                    models.Index(
                        fields=["organization_id", "-id"], name="runs_bulk_of_organization"
                    ),
                ],
            },
        ),
        owned("runs_bulk", ("SELECT", "INSERT", "UPDATE")),
        # Not how far it has come: each batch has its own entry.
        watched("runs_bulk", "INSERT", "DELETE", "UPDATE OF wanted, verb, asked_by_id, canary"),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
