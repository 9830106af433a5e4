from __future__ import annotations

import apps.core.models
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from apps.core.rowsecurity import WRITE, owned, through
from apps.events.watching import watched

class Migration(migrations.Migration):

    dependencies = [
        ('agents', '0004_row_security'),
        ("events", "0005_watched_tables"),
        ('projects', '0002_row_security'),
        ('runs', '0003_row_security'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Schedule',
            fields=[
                ('id', models.UUIDField(default=apps.core.models.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('organization_id', models.UUIDField()),
                ('name', models.CharField(max_length=80)),
                ('cron', models.CharField(max_length=100)),
                ('timezone', models.CharField(default='UTC', max_length=64)),
                ('catch_up', models.CharField(choices=[('skip', 'leave them out'), ('one', 'run once for all of them'), ('all', 'run each of them')], default='skip', max_length=8)),
                ('task', models.JSONField()),
                ('paused_at', models.DateTimeField(null=True)),
                ('pause_reason', models.CharField(blank=True, max_length=200)),
                ('next_at', models.DateTimeField(null=True)),
                ('agent', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='schedules', to='agents.agent')),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='schedules', to='projects.project')),
                ('submits_as', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='schedules', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='ScheduleFire',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('fire_at', models.DateTimeField()),
                ('outcome', models.CharField(choices=[('submitted', 'Submitted'), ('missed', 'Missed'), ('refused', 'Refused')], max_length=16)),
                ('detail', models.CharField(blank=True, max_length=500)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('run', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='fires', to='runs.run')),
                ('schedule', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='fires', to='runs.schedule')),
            ],
            options={
                'db_table': 'runs_schedule_fire',
                'ordering': ['-id'],
            },
        ),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(condition=models.Q(('next_at__isnull', False)), fields=['next_at'], name='runs_schedule_due'),
        ),
        migrations.AddIndex(
            model_name='schedule',
            index=models.Index(fields=['organization_id', '-id'], name='runs_schedule_of_organization'),
        ),
        migrations.AddConstraint(
            model_name='schedule',
            constraint=models.UniqueConstraint(fields=('project', 'name'), name='runs_schedule_one_name_each'),
        ),
        migrations.AddConstraint(
            model_name='schedule',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('next_at__isnull', False), ('paused_at', None)), models.Q(('next_at', None), ('paused_at__isnull', False)), _connector='OR'), name='runs_schedule_due_unless_paused'),
        ),
        migrations.AddConstraint(
            model_name='schedulefire',
            constraint=models.UniqueConstraint(fields=('schedule', 'fire_at'), name='runs_schedule_fire_once'),
        ),
        owned("runs_schedule", WRITE),
        # The engine writes them; they go when their schedule is deleted.
        through("runs_schedule", "runs_schedule_fire", ("SELECT", "DELETE"), column="schedule_id"),
        # Not when it is due next.
        watched(
            "runs_schedule",
            "INSERT",
            "DELETE",
            "UPDATE OF name, cron, timezone, catch_up, task, agent_id, submits_as_id, paused_at",
        ),
    ]
