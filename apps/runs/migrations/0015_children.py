"""Runs that runs start: a tree that the database keeps, and whose branches end with their parents."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

from apps.core.rowsecurity import through

FORWARD = """
-- The lock on the parent lets its end, or the order to cancel it, come before or after, not at the same time: what
-- comes after sees this row. The rules are told as the service does that keeps them before.
CREATE FUNCTION runs_child_check() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    parent runs_run;
    child runs_run;
    above runs_child;
BEGIN
    SELECT * INTO parent FROM runs_run WHERE id = NEW.parent_id FOR NO KEY UPDATE;
    SELECT * INTO child FROM runs_run WHERE id = NEW.run_id;
    SELECT * INTO above FROM runs_child WHERE run_id = NEW.parent_id;
    IF parent.id IS NULL OR child.id IS NULL
       OR parent.organization_id <> child.organization_id OR parent.project_id <> child.project_id THEN
        RAISE EXCEPTION 'a child belongs to the project of its parent'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_child_same_project';
    END IF;
    IF parent.finished_at IS NOT NULL OR parent.state = 'cancelling' THEN
        RAISE EXCEPTION 'a run that has ended, or is to be cancelled, gets no more children'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_child_of_an_open_run';
    END IF;
    IF child.state <> 'queued' OR child.attempts > 0 OR child.kin THEN
        RAISE EXCEPTION 'a run is born as a child, before it has started and has children'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_child_from_birth';
    END IF;
    IF NEW.root_id <> coalesce(above.root_id, NEW.parent_id) OR NEW.depth <> coalesce(above.depth, 0) + 1 THEN
        RAISE EXCEPTION 'root and depth of a child follow from its parent'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_child_in_the_tree';
    END IF;
    IF parent.total_deadline < coalesce(child.total_deadline, 'infinity') THEN
        RAISE EXCEPTION 'a child ends no later than its parent'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_child_ends_in_time';
    END IF;
    UPDATE runs_run SET kin = true WHERE id IN (NEW.run_id, NEW.parent_id) AND NOT kin;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_child_check BEFORE INSERT ON runs_child
    FOR EACH ROW EXECUTE FUNCTION runs_child_check();

CREATE FUNCTION runs_child_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'whose child a run is never changes'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_child_fixed';
END $$;
CREATE TRIGGER runs_child_fixed
    BEFORE UPDATE OF run_id, parent_id, root_id, depth, key, fingerprint, on_parent_end ON runs_child
    FOR EACH ROW EXECUTE FUNCTION runs_child_refuse_change();

-- The end of a run, or the order to cancel it, dooms its children in the same statement, however it comes about.
-- Theirs dooms the next generation in turn. Who has ended is not doomed any more.
CREATE FUNCTION runs_run_doom_children() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE runs_child AS child SET doomed_at = clock_timestamp()
      FROM runs_run AS run
     WHERE child.parent_id = NEW.id AND child.on_parent_end = 'cancel' AND child.doomed_at IS NULL
       AND run.id = child.run_id AND run.finished_at IS NULL;
    IF NEW.finished_at IS NOT NULL THEN
        UPDATE runs_child SET doomed_at = NULL WHERE run_id = NEW.id AND doomed_at IS NOT NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_run_doom AFTER UPDATE OF state ON runs_run
    FOR EACH ROW WHEN (NEW.kin AND OLD.state <> NEW.state
                       AND (NEW.finished_at IS NOT NULL OR NEW.state = 'cancelling'))
    EXECUTE FUNCTION runs_run_doom_children();
"""
BACKWARD = """
DROP TRIGGER runs_run_doom ON runs_run;
DROP FUNCTION runs_run_doom_children();
DROP TRIGGER runs_child_fixed ON runs_child;
DROP FUNCTION runs_child_refuse_change();
DROP TRIGGER runs_child_check ON runs_child;
DROP FUNCTION runs_child_check();
"""


def run(related: str) -> models.ForeignKey:
    return models.ForeignKey(
        on_delete=django.db.models.deletion.CASCADE, related_name=related, to="runs.run"
    )


class Migration(migrations.Migration):
    dependencies = [("runs", "0014_keys_in_bindings")]

    operations = [
        migrations.AddField(
            model_name="run", name="kin", field=models.BooleanField(db_default=False)
        ),
        migrations.CreateModel(
            name="ChildRun",
            fields=[
                (
                    "run",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="child_of",
                        serialize=False,
                        to="runs.run",
                    ),
                ),
                ("depth", models.PositiveSmallIntegerField()),
                ("key", models.CharField(blank=True, db_default="", max_length=200)),
                ("fingerprint", models.CharField(blank=True, db_default="", max_length=64)),
                (
                    "on_parent_end",
                    models.CharField(
                        choices=[("cancel", "it is cancelled"), ("leave", "it goes on")],
                        max_length=8,
                    ),
                ),
                ("doomed_at", models.DateTimeField(null=True)),
                ("parent", run("children")),
                ("root", run("descendants")),
            ],
            options={
                "db_table": "runs_child",
                "ordering": ["run_id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(parent__lt=models.F("run")),
                        name="runs_child_of_an_earlier_run",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(depth__gte=1, depth__lte=32),
                        name="runs_child_not_too_deep",
                    ),
                    models.UniqueConstraint(
                        condition=~models.Q(key=""),
                        fields=["parent", "key"],
                        name="runs_child_once_under_a_key",
                    ),
                ],
                "indexes": [
                    models.Index(
                        condition=models.Q(doomed_at__isnull=False),
                        fields=["run"],
                        name="runs_child_doomed",
                    )
                ],
            },
        ),
        through("runs_run", "runs_child", ("SELECT", "INSERT", "UPDATE"), column="run_id"),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
