"""Dead letters: written by a trigger where a run ends badly, and settled once."""

from __future__ import annotations

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from apps.core.rowsecurity import owned

FORWARD = """
CREATE FUNCTION runs_run_write_letter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runs_deadletter (run_id, organization_id, project_id, code, written_at)
    VALUES (NEW.id, NEW.organization_id, NEW.project_id,
            left(coalesce(NEW.error ->> 'code', NEW.state), 64), clock_timestamp());
    RETURN NULL;
END $$;
CREATE TRIGGER runs_run_letter AFTER UPDATE OF state ON runs_run
    FOR EACH ROW WHEN (NEW.state IN ('failed', 'expired', 'dead') AND OLD.state <> NEW.state)
    EXECUTE FUNCTION runs_run_write_letter();

CREATE FUNCTION runs_deadletter_check_settled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A run that is deleted takes its name with it; nothing else changes a settled letter.
    IF NEW.settled_at = OLD.settled_at AND NEW.requeued_as_id IS NULL THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a dead letter is settled once'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_deadletter_settled_once';
END $$;
CREATE TRIGGER runs_deadletter_settled_once BEFORE UPDATE ON runs_deadletter
    FOR EACH ROW WHEN (OLD.settled_at IS NOT NULL)
    EXECUTE FUNCTION runs_deadletter_check_settled();

-- Settling is somebody's act.
CREATE CONSTRAINT TRIGGER audited_settling AFTER UPDATE OF settled_at ON runs_deadletter
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.settled_at IS NULL)
    EXECUTE FUNCTION events_require_audit();

-- The runs that ended so before there were letters.
INSERT INTO runs_deadletter (run_id, organization_id, project_id, code, written_at, settled_at)
SELECT run.id, run.organization_id, run.project_id,
       left(coalesce(run.error ->> 'code', run.state), 64), run.finished_at,
       CASE WHEN EXISTS (SELECT FROM runs_run AS again WHERE again.rerun_of_id = run.id)
            THEN clock_timestamp() END
  FROM runs_run AS run WHERE run.state IN ('failed', 'expired', 'dead');
"""
BACKWARD = """
DROP TRIGGER runs_run_letter ON runs_run;
DROP FUNCTION runs_run_write_letter();
DROP TRIGGER runs_deadletter_settled_once ON runs_deadletter;
DROP FUNCTION runs_deadletter_check_settled();
DROP TRIGGER audited_settling ON runs_deadletter;
"""
VERBS = [
    ("cancel", "cancel"),
    ("rerun", "re-run"),
    ("requeue", "requeue"),
    ("dismiss", "dismiss"),
]


class Migration(migrations.Migration):
    dependencies = [("runs", "0007_bulk")]

    operations = [
        migrations.AlterField(
            model_name="bulkact",
            name="verb",
            field=models.CharField(choices=VERBS, max_length=8),
        ),
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="letter",
                        serialize=False,
                        to="runs.run",
                    ),
                ),
                ("organization_id", models.UUIDField()),
                ("code", models.CharField(max_length=64)),
                (
                    "written_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("settled_at", models.DateTimeField(null=True)),
                (
                    "project",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="projects.project",
                    ),
                ),
                (
                    "requeued_as",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="requeue_of",
                        to="runs.run",
                    ),
                ),
            ],
            options={
                "db_table": "runs_deadletter",
                "ordering": ["-run"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(requeued_as=None) | models.Q(settled_at__isnull=False),
                        name="runs_deadletter_requeued_is_settled",
                    )
                ],
                "indexes": [
                    models.Index(
                        condition=models.Q(settled_at=None),
                        fields=["project", "-run"],
                        name="runs_deadletter_open",
                    )
                ],
            },
        ),
        owned("runs_deadletter", ("SELECT", "INSERT", "UPDATE")),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
