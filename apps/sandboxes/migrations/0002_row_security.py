from __future__ import annotations

from django.db import migrations

from apps.core.rowsecurity import READ, owned


class Migration(migrations.Migration):
    dependencies = [("sandboxes", "0001_initial"), ("events", "0004_row_security")]

    operations = [owned("sandboxes_sandbox", READ)]
