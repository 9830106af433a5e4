"""Sandboxes that stand still while nobody needs them, and those of which only the workspace is left."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q

# Spelt out, not imported from types.py: a migration must not change when the code does.
# tests/db/sandboxes/test_tracking.py compares the two.
BEFORE = {
    "creating": ("warm", "claimed", "serving", "destroying", "gone", "failed"),
    "warm": ("claimed", "destroying", "failed"),
    "claimed": ("destroying", "gone", "failed"),
    "serving": ("destroying", "gone", "failed"),
    "destroying": ("gone", "failed"),
}
AFTER = BEFORE | {
    "claimed": ("paused", "destroying", "gone", "failed"),
    "serving": ("paused", "destroying", "gone", "failed"),
    "paused": ("claimed", "serving", "snapshotted", "destroying", "gone", "failed"),
    "snapshotted": ("gone", "failed"),
}
CONTENT_STAYS = """
    IF OLD.sha256 <> '' AND OLD.sha256 <> NEW.sha256 THEN
        RAISE EXCEPTION 'what was put away of a sandbox does not change'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'sandboxes_sandbox_content_stays';
    END IF;"""


def function(transitions, more=""):
    allowed = ", ".join(
        f"('{old}', '{new}')" for old, targets in transitions.items() for new in targets
    )
    return f"""
CREATE OR REPLACE FUNCTION sandboxes_sandbox_check_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN ({allowed}) THEN
        RAISE EXCEPTION 'a sandbox cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'sandboxes_sandbox_transition';
    END IF;
    IF OLD.run_id IS NOT NULL AND (OLD.run_id, OLD.attempt) IS DISTINCT FROM (NEW.run_id, NEW.attempt) THEN
        RAISE EXCEPTION 'a sandbox belongs to one attempt'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'sandboxes_sandbox_used_once';
    END IF;{more}
    RETURN NEW;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("sandboxes", "0005_serving")]

    operations = [
        migrations.AlterField(
            "sandbox",
            "state",
            models.CharField(
                choices=[
                    ("creating", "Creating"),
                    ("warm", "Warm"),
                    ("claimed", "Claimed"),
                    ("serving", "Serving"),
                    ("paused", "Paused"),
                    ("snapshotted", "Snapshotted"),
                    ("destroying", "Destroying"),
                    ("gone", "Gone"),
                    ("failed", "Failed"),
                ],
                default="creating",
                max_length=16,
            ),
        ),
        migrations.AddField("sandbox", "paused_at", models.DateTimeField(null=True)),
        migrations.AddField(
            "sandbox", "sha256", models.CharField(blank=True, default="", max_length=64)
        ),
        migrations.AddField("sandbox", "snapshot_size", models.BigIntegerField(default=0)),
        migrations.AddField("sandbox", "snapshot_files", models.PositiveIntegerField(default=0)),
        migrations.AddField("sandbox", "snapshot_left_out", models.PositiveIntegerField(default=0)),
        migrations.AddField("sandbox", "restored_from", models.UUIDField(null=True)),
        migrations.RunSQL(function(AFTER, CONTENT_STAYS), function(BEFORE)),
        migrations.AddConstraint(
            "sandbox",
            models.CheckConstraint(
                condition=~Q(state="serving") | Q(run_id=None),
                name="sandboxes_sandbox_serving_is_no_attempts",
            ),
        ),
        migrations.AddConstraint(
            "sandbox",
            models.CheckConstraint(
                condition=~Q(state="snapshotted")
                | Q(run_id__isnull=False, attempt__isnull=False) & ~Q(sha256=""),
                name="sandboxes_sandbox_put_away_has_content",
            ),
        ),
        migrations.AddIndex(
            "sandbox",
            models.Index(
                condition=Q(state="snapshotted"),
                fields=["sha256"],
                name="sandboxes_sandbox_put_away",
            ),
        ),
    ]
