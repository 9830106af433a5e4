"""Which files hold a stored content."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projects", "0002_row_security")]
    operations = [
        migrations.AddIndex(
            model_name="workspacefile",
            index=models.Index(fields=["sha256"], name="projects_workspacefile_of_sum"),
        )
    ]
