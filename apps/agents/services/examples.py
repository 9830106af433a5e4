"""The examples that come with AOS: an organization, its people, a project and agents.

Seeding again changes nothing that is there; a changed example becomes a new released version.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.db import transaction

from apps.agents.models import Agent
from apps.agents.services import registry
from apps.core import blobs
from apps.core.errors import NotFound
from apps.identity.actor import Actor
from apps.identity.matrix import SCOPES
from apps.identity.models import ApiToken, Organization, User
from apps.identity.services import bindings, people, tokens
from apps.identity.types import Role
from apps.projects.models import Project, WorkspaceFile
from apps.projects.services import files, projects

FOLDER: Final = settings.BASE_DIR / "examples"
MAIN: Final = "csv-report"
ORGANIZATION: Final = "demo"
PROJECT: Final = "playground"


class Member(NamedTuple):
    username: str
    first: str
    last: str
    role: Role


# Olivia owns, Adam administers, Oscar operates, Vera views.
CAST: Final = (
    Member("olivia", "Olivia", "Owens", Role.OWNER),
    Member("adam", "Adam", "Adler", Role.ADMIN),
    Member("oscar", "Oscar", "Ortega", Role.OPERATOR),
    Member("vera", "Vera", "Vance", Role.VIEWER),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One folder under ``examples/``: an agent's manifest, its source files, its data."""

    slug: str
    title: str
    description: str
    spec: dict[str, Any]
    data: tuple[Path, ...]


def load(folder: Path) -> Example:
    """Read an example; its source files are those the manifest names."""
    manifest = json.loads((folder / "agent.json").read_text("utf-8"))
    spec = manifest["spec"]
    spec["files"] = {name: (folder / name).read_text("utf-8") for name in spec["files"]}
    return Example(
        slug=manifest["slug"],
        title=manifest["title"],
        description=manifest["description"],
        spec=spec,
        data=tuple(sorted((folder / "data").glob("*.csv"))),
    )


def all_examples() -> Iterator[Example]:
    for manifest in sorted(FOLDER.glob("*/agent.json")):
        yield load(manifest.parent)


@transaction.atomic
def seed(*, reset_passwords: bool = False) -> dict[str, Any]:
    """Make what is missing and return what a person needs to sign in and submit the main job.

    Only hashes are kept, so the password of a person who was there before is ``None`` unless it is
    reset. The token is new each time and replaces the one before.
    """
    owner = Actor(user=_owner())
    users = [_person(owner, member, reset=reset_passwords) for member in CAST]
    project = _project(owner)
    install(owner, project)
    operator = Actor(user=User.objects.get(username="oscar", organization=owner.user.organization))
    for old in ApiToken.objects.usable().filter(user=operator.user, name="demo"):
        tokens.revoke(by=operator, token=old)
    _, token = tokens.issue(by=operator, name="demo", scopes=[s for s in SCOPES if s != "admin"])
    return {
        "organization": ORGANIZATION,
        "project": PROJECT,
        "agent": MAIN,
        "input": main_input(),
        "users": users,
        "token": token,
    }


@transaction.atomic
def install(owner: Actor, project: Project) -> None:
    """Bring the example agents into the owner's organization, and their data into a project of it."""
    for example in all_examples():
        _agent(owner, example)
        _data(owner, project, example)


def _owner() -> User:
    """The organization's owner; a new one gets a password nobody knows until it is reset below."""
    organization = Organization.objects.filter(slug=ORGANIZATION).first()
    if organization is not None:
        return User.objects.get(organization=organization, username=CAST[0].username)
    return people.found(
        slug=ORGANIZATION,
        name="Demo",
        owner=CAST[0].username,
        email=f"{CAST[0].username}@example.org",
        password=secrets.token_urlsafe(18),
    )


def _person(owner: Actor, member: Member, *, reset: bool) -> dict[str, str | None]:
    found = User.objects.filter(
        organization=owner.user.organization, username=member.username, last_name=member.last
    ).first()
    if found is not None and not reset:
        return {"username": member.username, "password": None, "role": member.role}
    password = secrets.token_urlsafe(12)
    user = found or _newcomer(owner, member, password)
    user.first_name, user.last_name = member.first, member.last
    user.set_password(password)
    # The demo shows it on the screen of who plays them all.
    user.first_password_until = None
    user.save(update_fields=["first_name", "last_name", "password", "first_password_until"])
    return {"username": member.username, "password": password, "role": member.role}


def _newcomer(owner: Actor, member: Member, password: str) -> User:
    if member.username == owner.user.username:
        return owner.user
    user = people.add(
        by=owner,
        username=member.username,
        email=f"{member.username}@example.org",
        password=password,
    )
    bindings.grant(by=owner, subject=user, role=member.role, reason="the demo's cast")
    return user


def _project(owner: Actor) -> Project:
    found = Project.objects.visible_to(owner.user).filter(slug=PROJECT).first()
    return found or projects.create(
        by=owner, slug=PROJECT, name="Playground", description="A place to try things out."
    )


def _agent(owner: Actor, example: Example) -> None:
    agent = Agent.objects.visible_to(owner.user).filter(slug=example.slug).first()
    if agent is None:
        agent = registry.register(
            by=owner, slug=example.slug, title=example.title, description=example.description
        )
    if agent.current is None or agent.current.spec != example.spec:
        version = registry.draft(by=owner, agent=agent, spec=example.spec)
        registry.release(by=owner, version=version)


def _data(owner: Actor, project: Project, example: Example) -> None:
    for path in example.data:
        found = WorkspaceFile.objects.filter(project=project, name=path.name).first()
        # A database may outlive its files: a folder deleted by hand and cloned again.
        if found is None or blobs.configured().find(found.sha256) is None:
            files.put(by=owner, project=project, name=path.name, chunks=[path.read_bytes()])


def main_input() -> dict[str, Any]:
    """What the main example is given: the dataset that comes with it."""
    example = load(FOLDER / MAIN)
    if not example.data:
        raise NotFound(what="dataset of the example", ref=MAIN)
    return {"file": example.data[0].name}
