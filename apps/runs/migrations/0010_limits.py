"""Limits: caps, rates and pauses behind gates; runs that wait at one are parked."""

from __future__ import annotations

import django.contrib.postgres.functions
import django.db.models.deletion
from django.db import migrations, models

import apps.core.models
from apps.core.rowsecurity import READ, WRITE, owned, through
from apps.events.watching import watched

FORWARD = """
ALTER TABLE runs_bucket SET (fillfactor = 50);

-- Who holds places gives them back with the lease, whichever statement takes that away.
CREATE FUNCTION runs_lease_leave_gates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM runs_hold WHERE run_id = OLD.run_id;
    RETURN NULL;
END $$;
CREATE TRIGGER runs_lease_leaves_gates AFTER DELETE ON runs_lease
    FOR EACH ROW WHEN (OLD.gated) EXECUTE FUNCTION runs_lease_leave_gates();

-- At the commit of a changed limit: first the number that every claim must name, which waits for the claim
-- that is under way and refuses those that were decided before; then places for what is with workers
-- already, so that a new cap counts it. Locks in the order of the house: runs, then leases.
CREATE FUNCTION runs_take_places(
    taken uuid, home uuid, in_project uuid, of_agent uuid, with_key text, in_lane bigint
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    WITH found AS MATERIALIZED (
        SELECT run.id
          FROM runs_lease AS lease
          JOIN runs_run AS run ON run.id = lease.run_id
          JOIN agents_agentversion AS version ON version.id = run.agent_version_id
         WHERE run.organization_id = home
           AND (in_project IS NULL OR run.project_id = in_project)
           AND (of_agent IS NULL OR version.agent_id = of_agent)
           AND (with_key IS NULL OR run.concurrency_key = with_key)
           AND (in_lane IS NULL OR lease.lane_id = in_lane)
           AND NOT EXISTS (SELECT FROM runs_hold AS hold
                            WHERE hold.gate = taken AND hold.run_id = run.id)
         ORDER BY run.id
           FOR NO KEY UPDATE OF run
    ), marked AS (
        UPDATE runs_lease AS lease SET gated = true FROM found WHERE lease.run_id = found.id
        RETURNING lease.run_id
    )
    INSERT INTO runs_hold (gate, number, run_id)
    SELECT taken, coalesce((SELECT max(number) FROM runs_hold WHERE gate = taken), 0)
                  + row_number() OVER (ORDER BY run_id), run_id
      FROM marked;
END $$;
REVOKE EXECUTE ON FUNCTION runs_take_places(uuid, uuid, uuid, uuid, text, bigint) FROM PUBLIC;

CREATE FUNCTION runs_limit_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE runs_leader SET rules = rules + 1;
    IF TG_OP <> 'DELETE' AND NEW.cap IS NOT NULL THEN
        PERFORM runs_take_places(NEW.gate, NEW.organization_id, NEW.project_id, NEW.agent_id,
                                 nullif(NEW.key, ''), NULL);
    ELSIF TG_OP = 'DELETE' AND OLD.key <> '' THEN
        PERFORM runs_take_places(OLD.gate, OLD.organization_id, NULL, NULL, OLD.key, NULL);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER runs_limit_tells_leader AFTER INSERT OR DELETE
    OR UPDATE OF cap, rate_count, rate_seconds, paused_at ON runs_limit
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION runs_limit_changed();

CREATE FUNCTION runs_lane_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE runs_leader SET rules = rules + 1;
    IF NEW.cap IS NOT NULL THEN
        PERFORM runs_take_places(NEW.gate, NEW.organization_id, NULL, NULL, NULL, NEW.id);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER runs_lane_tells_leader AFTER UPDATE OF cap, paused ON runs_lane
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION runs_lane_changed();

CREATE CONSTRAINT TRIGGER audited_cap AFTER UPDATE OF cap ON runs_lane
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();
"""
BACKWARD = """
DROP TRIGGER audited_cap ON runs_lane;
DROP TRIGGER runs_lane_tells_leader ON runs_lane;
DROP FUNCTION runs_lane_changed();
DROP TRIGGER runs_limit_tells_leader ON runs_limit;
DROP FUNCTION runs_limit_changed();
DROP FUNCTION runs_take_places(uuid, uuid, uuid, uuid, text, bigint);
DROP TRIGGER runs_lease_leaves_gates ON runs_lease;
DROP FUNCTION runs_lease_leave_gates();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("agents", "0005_functions"),
        ("events", "0005_watched_tables"),
        ("projects", "0002_row_security"),
        ("runs", "0009_monthly_logs"),
    ]

    operations = [
        migrations.CreateModel(
            name="Bucket",
            fields=[
                ("gate", models.UUIDField(primary_key=True, serialize=False)),
                ("organization_id", models.UUIDField()),
                ("full_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Hold",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("gate", models.UUIDField()),
                ("number", models.PositiveIntegerField()),
                ("run_id", models.BigIntegerField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="Limit",
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
                (
                    "scope",
                    models.CharField(
                        choices=[
                            ("organization", "Organization"),
                            ("project", "Project"),
                            ("agent", "Agent"),
                            ("key", "Key"),
                        ],
                        max_length=16,
                    ),
                ),
                ("gate", models.UUIDField(unique=True)),
                ("key", models.CharField(blank=True, max_length=200)),
                ("cap", models.PositiveIntegerField(null=True)),
                ("rate_count", models.PositiveIntegerField(null=True)),
                ("rate_seconds", models.PositiveIntegerField(null=True)),
                ("queue_limit", models.PositiveIntegerField(null=True)),
                ("paused_at", models.DateTimeField(null=True)),
                ("pause_reason", models.CharField(blank=True, max_length=200)),
            ],
            options={
                "ordering": ["scope", "id"],
            },
        ),
        migrations.RemoveIndex(
            model_name="readyrun",
            name="runs_ready_in_lane",
        ),
        migrations.AddField(
            model_name="lane",
            name="cap",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="lane",
            name="gate",
            field=models.UUIDField(
                db_default=django.contrib.postgres.functions.RandomUUID(),
                editable=False,
                unique=True,
            ),
        ),
        migrations.AddField(
            model_name="leader",
            name="rules",
            field=models.BigIntegerField(db_default=0),
        ),
        migrations.AddField(
            model_name="readyrun",
            name="gate",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="run",
            name="concurrency_key",
            field=models.CharField(blank=True, db_default="", max_length=200),
        ),
        migrations.AddField(
            model_name="runlease",
            name="gated",
            field=models.BooleanField(db_default=False),
        ),
        migrations.AddIndex(
            model_name="readyrun",
            index=models.Index(
                condition=models.Q(("gate", None)),
                fields=["lane", "seq"],
                name="runs_ready_by_lane",
            ),
        ),
        migrations.AddIndex(
            model_name="readyrun",
            index=models.Index(
                condition=models.Q(("gate__isnull", False)),
                fields=["gate", "lane", "seq"],
                name="runs_ready_parked",
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.UniqueConstraint(fields=("gate", "number"), name="runs_hold_once"),
        ),
        migrations.AddField(
            model_name="limit",
            name="agent",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="agents.agent",
            ),
        ),
        migrations.AddField(
            model_name="limit",
            name="project",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="projects.project",
            ),
        ),
        migrations.AddIndex(
            model_name="limit",
            index=models.Index(fields=["organization_id"], name="runs_limit_of_organization"),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("agent", None), ("key", ""), ("project", None), ("scope", "organization")
                    ),
                    models.Q(
                        ("agent", None),
                        ("key", ""),
                        ("project__isnull", False),
                        ("scope", "project"),
                    ),
                    models.Q(
                        ("agent__isnull", False), ("key", ""), ("project", None), ("scope", "agent")
                    ),
                    models.Q(
                        ("agent", None),
                        ("project", None),
                        ("scope", "key"),
                        models.Q(("key", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="runs_limit_names_its_subject",
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("rate_count", None), ("rate_seconds", None)),
                    models.Q(("rate_count__gt", 0), ("rate_seconds__gt", 0)),
                    _connector="OR",
                ),
                name="runs_limit_rate_is_whole",
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(("cap", None), ("cap__gt", 0), _connector="OR"),
                name="runs_limit_cap_lets_one_through",
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("queue_limit", None), ("scope", "organization"), _connector="OR"
                ),
                name="runs_limit_queue_of_organization",
            ),
        ),
        owned("runs_limit", WRITE),
        owned("runs_bucket", READ),
        through("runs_run", "runs_hold", ("SELECT", "DELETE"), column="run_id"),
        watched(
            "runs_limit",
            "INSERT",
            "DELETE",
            "UPDATE OF cap, rate_count, rate_seconds, queue_limit, paused_at, gate",
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
