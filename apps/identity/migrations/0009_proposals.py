from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import apps.core.models
from apps.core.rowsecurity import WRITE, owned

WATCH = """
CREATE CONSTRAINT TRIGGER audited_0 AFTER INSERT OR DELETE ON identity_proposal
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();
CREATE CONSTRAINT TRIGGER audited_1 AFTER UPDATE ON identity_proposal
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();
"""
UNWATCH = """
DROP TRIGGER audited_1 ON identity_proposal;
DROP TRIGGER audited_0 ON identity_proposal;
"""


class Migration(migrations.Migration):

    dependencies = [("identity", "0008_first_passwords"), ("events", "0005_watched_tables")]

    operations = [
        migrations.CreateModel(
            name='Proposal',
            fields=[
                ('id', models.UUIDField(default=apps.core.models.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('reason', models.CharField(blank=True, max_length=200)),
                ('expires_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('open', 'Open'), ('accepted', 'Accepted'), ('declined', 'Declined')], default='open', editable=False, max_length=16)),
                ('decided_at', models.DateTimeField(editable=False, null=True)),
                ('why', models.CharField(blank=True, editable=False, max_length=200)),
                ('decided_by', models.ForeignKey(editable=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='proposals', to='identity.organization')),
                ('requested_by', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='proposals', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('state', 'accepted'), _negated=True), ('decided_by', None), models.Q(('decided_by', models.F('requested_by')), _negated=True), _connector='OR'), name='identity_proposal_takes_two'), models.CheckConstraint(condition=models.Q(models.Q(('decided_at', None), ('state', 'open')), models.Q(models.Q(('state', 'open'), _negated=True), ('decided_at__isnull', False)), _connector='OR'), name='identity_proposal_open_iff_undecided')],
            },
        ),
        owned("identity_proposal", WRITE),
        migrations.RunSQL(WATCH, UNWATCH),
    ]
