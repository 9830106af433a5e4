"""The moment by which a run has ended, and the table that the engine searches for those that are due."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

from apps.core.rowsecurity import WRITE, through

FORWARD = """
CREATE FUNCTION runs_run_note_deadline() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runs_deadline (run_id, at) VALUES (NEW.id, NEW.total_deadline);
    RETURN NULL;
END $$;
CREATE TRIGGER runs_run_deadline_noted AFTER INSERT ON runs_run
    FOR EACH ROW WHEN (NEW.total_deadline IS NOT NULL)
    EXECUTE FUNCTION runs_run_note_deadline();

CREATE FUNCTION runs_run_drop_deadline() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM runs_deadline WHERE run_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_run_deadline_dropped AFTER UPDATE OF state ON runs_run
    FOR EACH ROW WHEN (NEW.total_deadline IS NOT NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION runs_run_drop_deadline();

CREATE FUNCTION runs_run_keep_deadline() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the total deadline of a run is never changed'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_run_deadline_fixed';
END $$;
CREATE TRIGGER runs_run_deadline_fixed BEFORE UPDATE OF total_deadline ON runs_run
    FOR EACH ROW WHEN (NEW.total_deadline IS DISTINCT FROM OLD.total_deadline)
    EXECUTE FUNCTION runs_run_keep_deadline();
"""
BACKWARD = """
DROP TRIGGER runs_run_deadline_fixed ON runs_run;
DROP FUNCTION runs_run_keep_deadline();
DROP TRIGGER runs_run_deadline_dropped ON runs_run;
DROP FUNCTION runs_run_drop_deadline();
DROP TRIGGER runs_run_deadline_noted ON runs_run;
DROP FUNCTION runs_run_note_deadline();
"""


class Migration(migrations.Migration):
    dependencies = [("runs", "0011_dependencies")]

    operations = [
        migrations.AddField(
            model_name="run", name="total_deadline", field=models.DateTimeField(null=True)
        ),
        migrations.CreateModel(
            name="RunDeadline",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="must_end",
                        serialize=False,
                        to="runs.run",
                    ),
                ),
                ("at", models.DateTimeField(db_index=True)),
            ],
            options={"db_table": "runs_deadline"},
        ),
        through("runs_run", "runs_deadline", WRITE, column="run_id"),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
