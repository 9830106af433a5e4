"""Who refers to a stored content, found without reading whole tables."""

from __future__ import annotations

from django.db import migrations, models

# Only runs that were given files: the others, most of them, cost nothing.
FORWARD = """
CREATE INDEX runs_run_of_files ON runs_run USING gin ((spec -> 'files') jsonb_path_ops)
    WHERE spec -> 'files' <> '[]'::jsonb;
"""
BACKWARD = "DROP INDEX runs_run_of_files;"


class Migration(migrations.Migration):
    dependencies = [("runs", "0005_messages_of_many_runs")]
    operations = [
        migrations.AddIndex(
            model_name="artifact",
            index=models.Index(fields=["sha256"], name="runs_artifact_of_sum"),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
