"""Sandboxes that serve a process for as long as it lives, such as with tools, and no attempt."""

from __future__ import annotations

from django.db import migrations, models

# Spelt out, not imported from types.py: a migration must not change when the code does.
# tests/db/sandboxes/test_tracking.py compares the two.
BEFORE = {
    "creating": ("warm", "claimed", "destroying", "gone", "failed"),
    "warm": ("claimed", "destroying", "failed"),
    "claimed": ("destroying", "gone", "failed"),
    "destroying": ("gone", "failed"),
}
AFTER = BEFORE | {
    "creating": ("warm", "claimed", "serving", "destroying", "gone", "failed"),
    "serving": ("destroying", "gone", "failed"),
}


def function(transitions):
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
    END IF;
    RETURN NEW;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("sandboxes", "0004_environments")]

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
                    ("destroying", "Destroying"),
                    ("gone", "Gone"),
                    ("failed", "Failed"),
                ],
                default="creating",
                max_length=16,
            ),
        ),
        migrations.RunSQL(function(AFTER), function(BEFORE)),
    ]
