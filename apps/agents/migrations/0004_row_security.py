from __future__ import annotations

from django.db import migrations

from apps.core.rowsecurity import WRITE, owned, through


class Migration(migrations.Migration):
    dependencies = [
        ("agents", "0003_released_versions_never_change"),
        ("events", "0004_row_security"),
    ]

    operations = [
        owned("agents_agent", WRITE),
        through("agents_agent", "agents_agentversion", WRITE, column="agent_id"),
    ]
