"""Budgets: run seconds that a tree of runs may take, exact however many ask at once."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

from apps.core.rowsecurity import through

FORWARD = """
-- Who has a share is looked at when an attempt or the run ends; all others cost nothing.
CREATE FUNCTION runs_share_mark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE runs_run SET kin = true WHERE id = NEW.run_id AND NOT kin;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_share_marked AFTER INSERT ON runs_share
    FOR EACH ROW EXECUTE FUNCTION runs_share_mark();

-- The end of an attempt is charged to the run's share, in the statement that ends it and by the clock of the
-- database; the end of the run gives back what it did not use. No more is charged than was held: the moment that
-- an attempt needs to be stopped in is not the tree's.
CREATE FUNCTION runs_run_settle_share() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    share runs_share;
    spent numeric := 0;
BEGIN
    SELECT * INTO share FROM runs_share WHERE run_id = NEW.id FOR NO KEY UPDATE;
    IF share.run_id IS NULL THEN
        RETURN NULL;
    END IF;
    IF OLD.state IN ('running', 'cancelling') THEN
        SELECT greatest(0, extract(epoch FROM clock_timestamp() - started_at)) INTO spent
          FROM runs_attempt WHERE run_id = NEW.id AND number = NEW.attempts;
    END IF;
    spent := least(round(share.used_s + coalesce(spent, 0), 3), share.held_s);
    UPDATE runs_share SET used_s = spent,
                          held_s = CASE WHEN NEW.finished_at IS NULL THEN share.held_s ELSE spent END
     WHERE run_id = NEW.id;
    IF NEW.finished_at IS NOT NULL AND share.held_s > spent THEN
        UPDATE runs_budget SET taken_s = taken_s - (share.held_s - spent) WHERE run_id = share.budget_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_run_settle AFTER UPDATE OF state ON runs_run
    FOR EACH ROW WHEN (NEW.kin AND ((NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL)
                                    OR (OLD.state = 'running' AND NEW.state = 'queued')))
    EXECUTE FUNCTION runs_run_settle_share();

CREATE FUNCTION runs_budget_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what a tree of runs was granted never changes'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_budget_fixed';
END $$;
CREATE TRIGGER runs_budget_fixed BEFORE UPDATE OF run_id, granted_s ON runs_budget
    FOR EACH ROW EXECUTE FUNCTION runs_budget_refuse_change();
"""
BACKWARD = """
DROP TRIGGER runs_budget_fixed ON runs_budget;
DROP FUNCTION runs_budget_refuse_change();
DROP TRIGGER runs_run_settle ON runs_run;
DROP FUNCTION runs_run_settle_share();
DROP TRIGGER runs_share_marked ON runs_share;
DROP FUNCTION runs_share_mark();
"""


def run(related: str) -> models.OneToOneField:
    return models.OneToOneField(
        on_delete=django.db.models.deletion.CASCADE,
        primary_key=True,
        related_name=related,
        serialize=False,
        to="runs.run",
    )


class Migration(migrations.Migration):
    dependencies = [("runs", "0016_held_runs_count")]

    operations = [
        migrations.CreateModel(
            name="Budget",
            fields=[
                ("run", run("budget")),
                ("granted_s", models.PositiveIntegerField()),
                ("taken_s", models.DecimalField(decimal_places=3, max_digits=14)),
            ],
            options={
                "db_table": "runs_budget",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(taken_s__gte=0, taken_s__lte=models.F("granted_s")),
                        name="runs_budget_not_exceeded",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Share",
            fields=[
                ("run", run("share")),
                ("held_s", models.DecimalField(decimal_places=3, max_digits=14)),
                ("used_s", models.DecimalField(decimal_places=3, default=0, max_digits=14)),
                ("attempt_s", models.PositiveIntegerField()),
                (
                    "budget",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="shares",
                        to="runs.budget",
                    ),
                ),
            ],
            options={
                "db_table": "runs_share",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(used_s__gte=0, used_s__lte=models.F("held_s")),
                        name="runs_share_not_exceeded",
                    )
                ],
            },
        ),
        through("runs_run", "runs_budget", ("SELECT", "INSERT", "UPDATE"), column="run_id"),
        through("runs_run", "runs_share", ("SELECT", "INSERT", "UPDATE"), column="run_id"),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
