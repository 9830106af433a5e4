from __future__ import annotations

from typing import Final

from django.db import models


class Role(models.TextChoices):
    """Strictly nested: each role may do all that the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    OWNER = "owner"


class Scope(models.TextChoices):
    """Where a binding holds. The wider one includes the narrower."""

    ORGANIZATION = "organization"
    PROJECT = "project"


RANK: Final = {Role.VIEWER: 10, Role.OPERATOR: 20, Role.ADMIN: 30, Role.OWNER: 40}


def at_least(role: Role) -> tuple[Role, ...]:
    """The roles that include this one."""
    return tuple(other for other in Role if RANK[other] >= RANK[role])
