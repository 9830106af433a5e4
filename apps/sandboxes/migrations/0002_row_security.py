from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("sandboxes", "0001_initial")]

    operations = []
