"""Environments with a default one for each organization; what hosts offer for sandboxes."""

from __future__ import annotations

import apps.core.models
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from apps.core.rowsecurity import WRITE, grant, owned
from apps.events.watching import watched

# Each organization has one from its first moment on, whoever founds it and however: covered by the audit
# entry of the founding.
FORWARD = """
INSERT INTO sandboxes_environment (id, created_at, updated_at, organization_id, project_id, name,
                                   description, is_default, profile, limits, egress, variables)
SELECT gen_random_uuid(), statement_timestamp(), statement_timestamp(), id, NULL, 'blank',
       'No network, no variables, the usual limits.', true, 'base', '{}', '{"mode": "none"}', '{}'
  FROM identity_organization;
SET CONSTRAINTS ALL IMMEDIATE;
SET CONSTRAINTS ALL DEFERRED;

CREATE FUNCTION sandboxes_environment_begin() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sandboxes_environment (id, created_at, updated_at, organization_id, project_id, name,
                                       description, is_default, profile, limits, egress, variables)
    VALUES (gen_random_uuid(), statement_timestamp(), statement_timestamp(), NEW.id, NULL, 'blank',
            'No network, no variables, the usual limits.', true, 'base', '{}', '{"mode": "none"}', '{}');
    RETURN NULL;
END $$;
CREATE TRIGGER sandboxes_environment_begin AFTER INSERT ON identity_organization
    FOR EACH ROW EXECUTE FUNCTION sandboxes_environment_begin();
"""
BACKWARD = """
DROP TRIGGER sandboxes_environment_begin ON identity_organization;
DROP FUNCTION sandboxes_environment_begin();
"""


class Migration(migrations.Migration):

    dependencies = [
        ("events", "0005_watched_tables"),
        ('identity', '0007_provider_accounts'),
        ('projects', '0002_row_security'),
        ('sandboxes', '0003_warm'),
    ]

    operations = [
        migrations.CreateModel(
            name='HostImage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('host', models.CharField(max_length=120)),
                ('tag', models.CharField(max_length=200)),
                ('source', models.CharField(blank=True, max_length=40)),
                ('digest', models.CharField(blank=True, max_length=100)),
                ('size', models.BigIntegerField(default=0)),
                ('built_at', models.DateTimeField(null=True)),
                ('base', models.CharField(blank=True, max_length=200)),
                ('is_current', models.BooleanField(null=True)),
                ('seen_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'db_table': 'sandboxes_host_image',
                'ordering': ['tag', 'host'],
                'constraints': [models.UniqueConstraint(fields=('host', 'tag'), name='sandboxes_host_image_once')],
            },
        ),
        migrations.CreateModel(
            name='HostProfile',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('host', models.CharField(max_length=120)),
                ('name', models.CharField(max_length=40)),
                ('image', models.CharField(max_length=200)),
                ('runtime', models.CharField(max_length=16)),
                ('egress', models.CharField(choices=[('none', 'None'), ('allowlist', 'Allowlist'), ('open', 'Open')], max_length=16)),
                ('gets', models.JSONField()),
                ('most', models.JSONField()),
                ('seen_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'db_table': 'sandboxes_host_profile',
                'ordering': ['name', 'host'],
                'constraints': [models.UniqueConstraint(fields=('host', 'name'), name='sandboxes_host_profile_once')],
            },
        ),
        migrations.CreateModel(
            name='Environment',
            fields=[
                ('id', models.UUIDField(default=apps.core.models.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('name', models.CharField(max_length=40)),
                ('description', models.CharField(blank=True, max_length=500)),
                ('is_default', models.BooleanField(default=False)),
                ('profile', models.CharField(default='base', max_length=40)),
                ('limits', models.JSONField(blank=True, default=dict)),
                ('egress', models.JSONField(blank=True, default=dict)),
                ('variables', models.JSONField(blank=True, default=dict)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='environments', to='identity.organization')),
                ('project', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='environments', to='projects.project')),
            ],
            options={
                'ordering': ['name', 'id'],
                'constraints': [models.UniqueConstraint(fields=('organization', 'project', 'name'), name='sandboxes_environment_one_name_each', nulls_distinct=False), models.UniqueConstraint(condition=models.Q(('is_default', True)), fields=('organization', 'project'), name='sandboxes_environment_one_default_each', nulls_distinct=False)],
            },
        ),
        owned("sandboxes_environment", WRITE),
        # Hosts serve every organization; workers write, web requests read.
        grant("sandboxes_host_profile", ("SELECT",)),
        grant("sandboxes_host_image", ("SELECT",)),
        migrations.RunSQL(FORWARD, BACKWARD),
        watched("sandboxes_environment", "INSERT", "DELETE", "UPDATE"),
    ]
