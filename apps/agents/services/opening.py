"""The first start's one act: owner, organization, first project and first API token, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db import transaction
from django.utils.text import slugify

from apps.identity.actor import Actor
from apps.identity.models import User
from apps.identity.services import installation, people, tokens
from apps.projects.models import Project
from apps.projects.services import projects

# What a first script needs: to put files in, submit runs and follow them.
TOKEN_SCOPES: Final = (
    "agent:read",
    "event:read",
    "project:read",
    "project:write",
    "run:read",
    "run:write",
)
_LONGEST_SLUG: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was made. The token's value is nowhere else."""

    owner: User
    project: Project
    token: str


@transaction.atomic
def open_up(
    *,
    code_number: int,
    username: str,
    display_name: str,
    password: str,
    organization: str,
    project: str,
) -> Opened:
    """Give the installation its owner, and shut the first start for good.

    Raises ``FirstStartOver`` when somebody was faster, ``ActivationCodeInvalid`` when a newer code
    was made, ``Invalid`` for a password against the policy; then nothing was made.
    """
    installation.claim(code_number)
    first_name, _, last_name = display_name.partition(" ")
    owner = people.found(
        slug=_slug(organization, "organization"),
        name=organization,
        owner=username,
        email="",
        password=password,
        first_name=first_name,
        last_name=last_name.strip(),
    )
    by = Actor(user=owner)
    made = projects.create(by=by, slug=_slug(project, "project"), name=project)
    _, value = tokens.issue(by=by, name="first token", scopes=TOKEN_SCOPES)
    return Opened(owner=owner, project=made, token=value)


def _slug(name: str, otherwise: str) -> str:
    """The short name of a thing; a name without any Latin letter gets a plain one."""
    return slugify(name)[:_LONGEST_SLUG].strip("-") or otherwise
