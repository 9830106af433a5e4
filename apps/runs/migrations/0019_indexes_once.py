"""Each new run is written to fewer indexes: those of the lists lead to its project and version as well."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("agents", "0007_removed"),
        ("projects", "0003_contents"),
        ("runs", "0018_retention"),
    ]

    operations = [
        migrations.AlterField(
            model_name="run",
            name="agent_version",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="runs",
                to="agents.agentversion",
            ),
        ),
        migrations.AlterField(
            model_name="run",
            name="project",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="runs",
                to="projects.project",
            ),
        ),
        migrations.AlterField(
            model_name="run",
            name="rerun_of",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="reruns",
                to="runs.run",
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("rerun_of__isnull", False)),
                fields=["rerun_of"],
                name="runs_run_rerun",
            ),
        ),
    ]
