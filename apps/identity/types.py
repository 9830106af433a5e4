from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import models


class Role(models.TextChoices):
    """Strictly nested: each role may do all that the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    OWNER = "owner"


class Scope(models.TextChoices):
    """Where a binding holds. The organization includes all others; a project and an agent include
    their runs.

    A new kind of place is one line here, its actions' ``over`` in the matrix, and a finder
    (``places.register``) in the app that has the rows.
    """

    ORGANIZATION = "organization"
    PROJECT = "project"
    AGENT = "agent"
    RUN = "run"


class UserKind(models.TextChoices):
    """A service account has bindings and tokens like a person, and no way to sign in."""

    PERSON = "person"
    SERVICE = "service"


class ProposalState(models.TextChoices):
    """An open one ends by itself after a day."""

    OPEN = "open"
    ACCEPTED = "accepted"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Something a binding can hold over, by value, with the wider places that include it."""

    scope: Scope
    id: UUID
    name: str
    project_id: UUID | None = None
    agent_id: UUID | None = None
    run_id: UUID | None = None

    def __str__(self) -> str:
        return f"{self.scope} {self.name}"


RANK: Final = {Role.VIEWER: 10, Role.OPERATOR: 20, Role.ADMIN: 30, Role.OWNER: 40}


def at_least(role: Role) -> tuple[Role, ...]:
    """The roles that include this one."""
    return tuple(other for other in Role if RANK[other] >= RANK[role])
