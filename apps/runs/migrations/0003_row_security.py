from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("runs", "0002_sequences_and_transitions")]

    operations = []
