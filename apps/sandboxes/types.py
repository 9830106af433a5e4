from __future__ import annotations

from django.db import models


class SandboxState(models.TextChoices):
    CREATING = "creating"
    CLAIMED = "claimed"
    DESTROYING = "destroying"
    GONE = "gone"
    FAILED = "failed"
