"""Sandboxes that wait for a run: made by a worker for nobody yet, claimed once, never given on."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q

# Spelt out, not imported from types.py: a migration must not change when the code does.
# tests/db/sandboxes/test_tracking.py compares the two.
TRANSITIONS = {
    "creating": ("warm", "claimed", "destroying", "gone", "failed"),
    "warm": ("claimed", "destroying", "failed"),
    "claimed": ("destroying", "gone", "failed"),
    "destroying": ("gone", "failed"),
}
_ALLOWED = ", ".join(
    f"('{old}', '{new}')" for old, targets in TRANSITIONS.items() for new in targets
)
FORWARD = f"""
CREATE FUNCTION sandboxes_sandbox_check_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN ({_ALLOWED}) THEN
        RAISE EXCEPTION 'a sandbox cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'sandboxes_sandbox_transition';
    END IF;
    IF OLD.run_id IS NOT NULL AND (OLD.run_id, OLD.attempt) IS DISTINCT FROM (NEW.run_id, NEW.attempt) THEN
        RAISE EXCEPTION 'a sandbox belongs to one attempt'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'sandboxes_sandbox_used_once';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER sandboxes_sandbox_change BEFORE UPDATE ON sandboxes_sandbox
    FOR EACH ROW EXECUTE FUNCTION sandboxes_sandbox_check_change();
"""
BACKWARD = """
DROP TRIGGER sandboxes_sandbox_change ON sandboxes_sandbox;
DROP FUNCTION sandboxes_sandbox_check_change();
"""


class Migration(migrations.Migration):
    dependencies = [("sandboxes", "0002_row_security")]

    operations = [
        migrations.AlterField("sandbox", "organization_id", models.UUIDField(null=True)),
        migrations.AlterField("sandbox", "project_id", models.UUIDField(null=True)),
        migrations.AlterField("sandbox", "run_id", models.UUIDField(null=True)),
        migrations.AlterField("sandbox", "attempt", models.PositiveIntegerField(null=True)),
        migrations.AlterField(
            "sandbox",
            "state",
            models.CharField(
                choices=[
                    ("creating", "Creating"),
                    ("warm", "Warm"),
                    ("claimed", "Claimed"),
                    ("destroying", "Destroying"),
                    ("gone", "Gone"),
                    ("failed", "Failed"),
                ],
                default="creating",
                max_length=16,
            ),
        ),
        migrations.AddField("sandbox", "profile", models.CharField(default="base", max_length=40)),
        migrations.AddField("sandbox", "host", models.CharField(blank=True, default="", max_length=120)),
        migrations.AddField("sandbox", "mould", models.CharField(blank=True, default="", max_length=64)),
        migrations.AddField("sandbox", "incarnation", models.UUIDField(null=True)),
        migrations.AddField("sandbox", "claimed_at", models.DateTimeField(null=True)),
        migrations.AddConstraint(
            "sandbox",
            models.CheckConstraint(
                condition=~Q(state="warm") | Q(run_id=None, organization_id=None),
                name="sandboxes_sandbox_warm_is_nobodys",
            ),
        ),
        migrations.AddConstraint(
            "sandbox",
            models.CheckConstraint(
                condition=~Q(state="claimed")
                | Q(run_id__isnull=False, organization_id__isnull=False, attempt__isnull=False),
                name="sandboxes_sandbox_claimed_is_somebodys",
            ),
        ),
        migrations.AddIndex(
            "sandbox",
            models.Index(
                condition=Q(state="warm"),
                fields=["incarnation", "mould", "id"],
                name="sandboxes_sandbox_waiting",
            ),
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
