from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("agents", "0004_row_security")]

    operations = [
        migrations.AlterField(
            model_name="agent",
            name="kind",
            field=models.CharField(
                choices=[("script", "Script"), ("function", "Function")], max_length=16
            ),
        ),
    ]
