"""Runs that are held back by others count among those that wait: found by their organization."""

from __future__ import annotations

from django.db import migrations, models

FILL = """
UPDATE runs_waiting AS waiting SET organization_id = run.organization_id
  FROM runs_run AS run WHERE run.id = waiting.run_id
"""


class Migration(migrations.Migration):
    dependencies = [("runs", "0015_children")]

    operations = [
        migrations.AddField(
            model_name="waitingrun", name="organization_id", field=models.UUIDField(null=True)
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="waitingrun", name="organization_id", field=models.UUIDField()
        ),
        migrations.AddIndex(
            model_name="waitingrun",
            index=models.Index(fields=["organization_id"], name="runs_waiting_of_organization"),
        ),
    ]
