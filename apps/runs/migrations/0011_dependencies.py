"""Runs that wait for runs: held in the database until the last one they need has ended."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

from apps.core.rowsecurity import ADD, WRITE, through

# Spelt out, not imported from types.py.
TRANSITIONS = {
    "queued": ("running", "cancelled", "expired", "failed"),
    "running": ("succeeded", "failed", "cancelling", "queued", "expired", "dead"),
    "cancelling": ("cancelled", "succeeded", "failed", "expired"),
}


def check_transition(transitions: dict[str, tuple[str, ...]]) -> str:
    allowed = ", ".join(
        f"('{old}', '{new}')" for old, targets in transitions.items() for new in targets
    )
    return f"""
CREATE OR REPLACE FUNCTION runs_run_check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state, NEW.state) NOT IN ({allowed}) THEN
        RAISE EXCEPTION 'a run cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_run_transition';
    END IF;
    RETURN NEW;
END $$;
"""


FORWARD = (
    check_transition(TRANSITIONS)
    + """
-- A run may be made to wait while it has not been started, for a run of its own organization. The lock on that
-- run lets its end come before or after, not at the same time: an end that comes after sees this row.
CREATE FUNCTION runs_dependency_check() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    needed uuid;
BEGIN
    SELECT organization_id INTO needed FROM runs_run WHERE id = NEW.on_id FOR NO KEY UPDATE;
    IF NOT EXISTS (SELECT FROM runs_run WHERE id = NEW.run_id AND organization_id = needed
                      AND state = 'queued' AND attempts = 0) THEN
        RAISE EXCEPTION 'a run depends on runs of its organization, before it has started'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_dependency_legal';
    END IF;
    UPDATE runs_run SET linked = true WHERE id IN (NEW.run_id, NEW.on_id) AND NOT linked;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_dependency_check BEFORE INSERT ON runs_dependency
    FOR EACH ROW EXECUTE FUNCTION runs_dependency_check();

CREATE FUNCTION runs_dependency_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what a run depends on is never changed'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_dependency_fixed';
END $$;
CREATE TRIGGER runs_dependency_fixed BEFORE UPDATE ON runs_dependency
    FOR EACH ROW EXECUTE FUNCTION runs_dependency_refuse_change();

-- The last wall: whatever the queue believes, a run does not start before its needs are met.
CREATE FUNCTION runs_run_check_needs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM runs_dependency AS d JOIN runs_run AS needed ON needed.id = d.on_id
                WHERE d.run_id = NEW.id
                  AND (needed.finished_at IS NULL
                       OR (needed.state <> 'succeeded' AND d.on_failure <> 'run'))) THEN
        RAISE EXCEPTION 'run % depends on a run that has not ended as it must', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_run_needs_met';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_run_needs BEFORE UPDATE OF state ON runs_run
    FOR EACH ROW WHEN (NEW.linked AND NEW.state = 'running' AND OLD.state <> 'running')
    EXECUTE FUNCTION runs_run_check_needs();

-- The end of a run counts for those that wait for it, in the statement that ends it and however it is ended.
-- Each query in here sees what was committed until now, so a dependency that was named while the end
-- waited for the run's lock is not missed. One end at a time in an organization: two that count for the same
-- runs would lock them in different orders.
CREATE FUNCTION runs_run_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('runs_waiting ' || NEW.organization_id, 0));
    DELETE FROM runs_waiting WHERE run_id = NEW.id;
    UPDATE runs_waiting AS w
       SET open = w.open - 1,
           cause_id = CASE WHEN w.verdict = '' AND NEW.state <> 'succeeded' AND d.on_failure <> 'run'
                           THEN NEW.id ELSE w.cause_id END,
           verdict = CASE WHEN w.verdict = '' AND NEW.state <> 'succeeded' AND d.on_failure <> 'run'
                          THEN d.on_failure ELSE w.verdict END
      FROM runs_dependency AS d
     WHERE d.on_id = NEW.id AND w.run_id = d.run_id;
    WITH free AS (
        DELETE FROM runs_waiting AS w USING runs_dependency AS d
         WHERE d.on_id = NEW.id AND w.run_id = d.run_id AND w.open = 0 AND w.verdict = ''
        RETURNING w.run_id, w.due_at
    )
    INSERT INTO runs_scheduled (run_id, due_at, dispatches)
    SELECT run_id, greatest(due_at, clock_timestamp()), 0 FROM free;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_run_wake AFTER UPDATE OF state ON runs_run
    FOR EACH ROW WHEN (NEW.linked AND NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL)
    EXECUTE FUNCTION runs_run_wake();
"""
)
BACKWARD = """
DROP TRIGGER runs_run_wake ON runs_run;
DROP FUNCTION runs_run_wake();
DROP TRIGGER runs_run_needs ON runs_run;
DROP FUNCTION runs_run_check_needs();
DROP TRIGGER runs_dependency_fixed ON runs_dependency;
DROP FUNCTION runs_dependency_refuse_change();
DROP TRIGGER runs_dependency_check ON runs_dependency;
DROP FUNCTION runs_dependency_check();
""" + check_transition(TRANSITIONS | {"queued": ("running", "cancelled", "expired")})
ON_FAILURE = [
    ("fail", "it fails as well"),
    ("skip", "it is skipped"),
    ("run", "it runs all the same"),
]


def run(related: str, **more: object) -> models.ForeignKey:
    return models.ForeignKey(
        on_delete=django.db.models.deletion.CASCADE, related_name=related, to="runs.run", **more
    )


class Migration(migrations.Migration):
    dependencies = [("runs", "0010_limits")]

    operations = [
        migrations.AlterModelOptions(name="deadletter", options={"ordering": ["-run_id"]}),
        migrations.AddField(
            model_name="run", name="linked", field=models.BooleanField(db_default=False)
        ),
        migrations.CreateModel(
            name="Dependency",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("on_failure", models.CharField(choices=ON_FAILURE, max_length=8)),
                ("run", run("needs", db_index=False)),
                ("on", run("needed_by")),
            ],
            options={
                "db_table": "runs_dependency",
                "ordering": ["run_id", "on_id"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=["run", "on"], name="runs_dependency_named_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(on__lt=models.F("run")),
                        name="runs_dependency_on_an_earlier_run",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="WaitingRun",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="waiting",
                        serialize=False,
                        to="runs.run",
                    ),
                ),
                ("open", models.IntegerField()),
                ("due_at", models.DateTimeField(null=True)),
                ("queue_deadline", models.DateTimeField(null=True)),
                (
                    "verdict",
                    models.CharField(blank=True, choices=ON_FAILURE, db_default="", max_length=8),
                ),
                ("cause", run("+", null=True, db_index=False)),
            ],
            options={
                "db_table": "runs_waiting",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(open__gte=0), name="runs_waiting_counts_down_to_zero"
                    ),
                ],
                "indexes": [
                    models.Index(
                        condition=~models.Q(verdict=""),
                        fields=["run"],
                        name="runs_waiting_decided",
                    ),
                    models.Index(
                        condition=models.Q(queue_deadline__isnull=False),
                        fields=["queue_deadline"],
                        name="runs_waiting_deadline",
                    ),
                ],
            },
        ),
        through("runs_run", "runs_dependency", ADD, column="run_id"),
        through("runs_run", "runs_waiting", WRITE, column="run_id"),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
