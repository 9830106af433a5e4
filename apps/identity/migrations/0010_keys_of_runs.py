"""A role over a run keeps the key by which runs are listed. ``runs`` adds the trigger that writes it."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("identity", "0009_proposals")]

    operations = [
        migrations.AddField(
            model_name="binding",
            name="run_key",
            field=models.BigIntegerField(editable=False, null=True),
        )
    ]
