from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("agents", "0003_released_versions_never_change")]

    operations = []
