"""The few sandboxes that are not over are found without a look at all that ever were."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("sandboxes", "0006_paused_and_snapshotted")]

    operations = [
        migrations.AddIndex(
            "sandbox",
            models.Index(
                condition=~Q(state__in=("gone", "failed")),
                fields=["state"],
                name="sandboxes_sandbox_open",
            ),
        ),
    ]
