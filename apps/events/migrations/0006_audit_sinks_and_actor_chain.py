"""Entries name the agent and the run that acted; every column is sealed; checkpoints leave by sinks.

Nothing was released with the chains as they were, so they begin anew: all entries wait for their seal
again, in the form that covers every column.
"""

from __future__ import annotations

from django.db import migrations, models

from apps.core.rowsecurity import READ, grant

AGAIN = """
TRUNCATE events_auditseal, events_auditcheckpoint;
INSERT INTO events_auditinbox (entry_id) SELECT id FROM events_auditentry ON CONFLICT DO NOTHING;
SET CONSTRAINTS ALL IMMEDIATE;
SET CONSTRAINTS ALL DEFERRED;
"""
KEEP = """
CREATE TRIGGER events_auditentry_keep BEFORE TRUNCATE ON events_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION events_refuse_change();
CREATE TRIGGER events_auditseal_keep BEFORE TRUNCATE ON events_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION events_refuse_change();
CREATE TRIGGER events_auditcheckpoint_keep BEFORE TRUNCATE ON events_auditcheckpoint
    FOR EACH STATEMENT EXECUTE FUNCTION events_refuse_change();
"""
NOT_KEEP = """
DROP TRIGGER events_auditcheckpoint_keep ON events_auditcheckpoint;
DROP TRIGGER events_auditseal_keep ON events_auditseal;
DROP TRIGGER events_auditentry_keep ON events_auditentry;
"""


class Migration(migrations.Migration):
    dependencies = [("events", "0005_watched_tables")]

    operations = [
        migrations.RunSQL(AGAIN, AGAIN),
        migrations.AddField("auditentry", "agent_id", models.UUIDField(null=True)),
        migrations.AddField("auditentry", "run_id", models.UUIDField(null=True)),
        migrations.RemoveField("auditseal", "id"),
        migrations.AlterField(
            "auditseal", "entry_id", models.BigIntegerField(primary_key=True, serialize=False)
        ),
        migrations.RemoveField("auditcheckpoint", "id"),
        migrations.AlterField(
            "auditcheckpoint", "number", models.BigIntegerField(primary_key=True, serialize=False)
        ),
        migrations.RemoveField("auditcheckpoint", "body"),
        migrations.RemoveField("auditcheckpoint", "signature"),
        migrations.AddField(
            "auditcheckpoint", "line", models.TextField(default=""), preserve_default=False
        ),
        migrations.CreateModel(
            name="AuditSink",
            fields=[
                (
                    "name",
                    models.CharField(max_length=300, primary_key=True, serialize=False),
                ),
                ("delivered", models.BigIntegerField(default=0)),
                ("away_since", models.DateTimeField(null=True)),
                ("why", models.CharField(blank=True, max_length=300)),
            ],
        ),
        grant("events_auditsink", READ),
        migrations.RunSQL(KEEP, NOT_KEEP),
    ]
