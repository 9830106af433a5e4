"""Abstract bases. Nothing here knows a domain word."""

from __future__ import annotations

from uuid import UUID

import uuid_utils.compat
from django.db import models


def uuid7() -> UUID:
    """A time-ordered id that is safe to show: it sorts by age and keeps indexes compact."""
    return uuid_utils.compat.uuid7()


class BaseModel(models.Model):
    """A row with an opaque id that is safe to show, and the two timestamps everyone asks for."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
