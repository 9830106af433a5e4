"""Messages that carry several runs; what a run of a version takes; leaner hot tables."""

from __future__ import annotations

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from apps.core.rowsecurity import READ, through

FORWARD = """
UPDATE runs_ready AS ready SET queue_deadline = run.queue_deadline
  FROM runs_run AS run WHERE run.id = ready.run_id AND run.attempts = 0;
-- A run is rewritten at its start and at its end, an attempt at its end. With room on the page and no
-- indexed column among those that change, neither touches an index.
ALTER TABLE runs_run SET (fillfactor = 60);
ALTER TABLE runs_attempt SET (fillfactor = 70);
ALTER TABLE runs_pace SET (fillfactor = 50);
"""
BACKWARD = """
ALTER TABLE runs_run RESET (fillfactor);
ALTER TABLE runs_attempt RESET (fillfactor);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("agents", "0005_functions"),
        ("runs", "0004_schedules"),
    ]

    operations = [
        migrations.CreateModel(
            name="Pace",
            fields=[
                (
                    "version",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="agents.agentversion",
                    ),
                ),
                ("mean_s", models.FloatField()),
                ("runs", models.BigIntegerField()),
                (
                    "measured_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
        ),
        through("agents_agentversion", "runs_pace", READ, column="version_id"),
        migrations.RemoveIndex(model_name="run", name="runs_run_queue_deadline"),
        migrations.AddField(
            model_name="readyrun", name="queue_deadline", field=models.DateTimeField(null=True)
        ),
        migrations.AddField(
            model_name="readyrun",
            name="ready_at",
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
        ),
        migrations.AddField(
            model_name="runlease",
            name="message",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AlterField(
            model_name="attempt",
            name="run",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="attempt_set",
                to="runs.run",
            ),
        ),
        migrations.AddIndex(
            model_name="readyrun",
            index=models.Index(
                condition=models.Q(("queue_deadline__isnull", False)),
                fields=["queue_deadline"],
                name="runs_ready_deadline",
            ),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
