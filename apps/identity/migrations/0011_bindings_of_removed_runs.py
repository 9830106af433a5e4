"""Find the roles over a run when the run is removed."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("identity", "0010_keys_of_runs")]

    operations = [
        migrations.AddIndex(
            "binding",
            models.Index(
                fields=["run_key"],
                name="identity_binding_of_run",
                condition=Q(run_key__isnull=False),
            ),
        )
    ]
