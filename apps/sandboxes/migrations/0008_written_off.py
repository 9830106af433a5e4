"""Sandboxes that failed lately are found without a look at all that ever were."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("sandboxes", "0007_open")]

    operations = [
        migrations.AddIndex(
            "sandbox",
            models.Index(
                condition=Q(state="failed"),
                fields=["organization_id", "gone_at"],
                name="sandboxes_sandbox_written_off",
            ),
        ),
    ]
