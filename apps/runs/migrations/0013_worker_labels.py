"""Labels of workers, and what runs require of them. A run that requires nothing has two empty columns more."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0012_total_deadline")]

    operations = [
        migrations.AddField("run", "requires", models.JSONField(null=True)),
        migrations.AddField("run", "pool_gate", models.UUIDField(null=True)),
        migrations.AddField("runlease", "pool", models.CharField(max_length=16, null=True)),
        migrations.AddField("workernode", "labels", models.JSONField(db_default={})),
        migrations.AddField("workernode", "pool", models.CharField(db_default="", max_length=16)),
        migrations.AlterField("workernode", "version", models.CharField(max_length=80)),
    ]
