from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("events", "0004_row_security"), ("identity", "0003_row_security"), ("projects", "0002_row_security"), ("agents", "0004_row_security"), ("runs", "0003_row_security")]

    operations = []
