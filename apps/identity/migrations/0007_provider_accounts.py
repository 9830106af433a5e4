from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import apps.core.models
from apps.core.rowsecurity import WRITE, through

WATCH = """
CREATE CONSTRAINT TRIGGER audited_0 AFTER INSERT OR DELETE ON identity_provideraccount
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();
CREATE CONSTRAINT TRIGGER audited_1 AFTER UPDATE ON identity_provideraccount
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();
"""
UNWATCH = """
DROP TRIGGER audited_1 ON identity_provideraccount;
DROP TRIGGER audited_0 ON identity_provideraccount;
"""


class Migration(migrations.Migration):
    dependencies = [("identity", "0006_installation"), ("events", "0005_watched_tables")]

    operations = [
        migrations.AddField(
            model_name="binding",
            name="group",
            # With a default in the database, for processes of the release before.
            field=models.CharField(
                blank=True, db_default="", default="", editable=False, max_length=200
            ),
        ),
        migrations.CreateModel(
            name="ProviderAccount",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=apps.core.models.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("issuer", models.CharField(max_length=255)),
                ("subject", models.CharField(max_length=255)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="provider_accounts",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("issuer", "subject"),
                        name="identity_provideraccount_one_person_each",
                    ),
                    models.UniqueConstraint(
                        fields=("issuer", "user"),
                        name="identity_provideraccount_one_account_each",
                    ),
                ]
            },
        ),
        through("identity_user", "identity_provideraccount", WRITE, column="user_id"),
        migrations.RunSQL(WATCH, UNWATCH),
    ]
