"""The Celery application: a transport for run ids, watched by Flower."""

from __future__ import annotations

import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aos_project.settings.dev")  # noqa: TID251  # before settings exist

# Celery's own Django fix-up would close the database connection around every task; a run keeps its
# connection and mends it when it breaks (see workers.tasks).
app = Celery("aos", fixups=[], include=["workers.tasks", "workers.lifespan", "workers.delivery"])
app.config_from_object("django.conf:settings", namespace="CELERY")
django.setup()
