"""Agents that were deleted: their runs go on naming them, and their slug is free for another."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("agents", "0006_drafts_never_change")]

    operations = [
        migrations.AddField("agent", "removed_at", models.DateTimeField(editable=False, null=True)),
        migrations.RemoveConstraint("agent", "agents_agent_one_slug_each"),
        migrations.AddConstraint(
            "agent",
            models.UniqueConstraint(
                condition=Q(removed_at=None),
                fields=("organization", "slug"),
                name="agents_agent_one_slug_each",
            ),
        ),
    ]
