from __future__ import annotations

from django.db import models


class AgentKind(models.TextChoices):
    SCRIPT = "script"


class VersionState(models.TextChoices):
    DRAFT = "draft"
    RELEASED = "released"
