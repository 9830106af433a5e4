"""Making projects, and naming one."""

from __future__ import annotations

from uuid import UUID

from django.db import IntegrityError, transaction

from apps.core import sql
from apps.core.errors import Conflict
from apps.core.rest import references
from apps.events.services import changes, outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.identity.types import Place, Scope
from apps.projects.models import Project


@transaction.atomic
def create(*, by: Actor, slug: str, name: str, description: str = "") -> Project:
    """Create a project in the actor's organization; raise ``Conflict`` when the slug is taken."""
    policy.require(by, "project.manage")
    project = Project(
        organization=by.user.organization, slug=slug, name=name, description=description
    )
    try:
        with transaction.atomic():
            project.save(force_insert=True)
    except IntegrityError as error:
        if sql.violated_constraint(error) == "projects_project_one_slug_each":
            raise Conflict(reason=f"There is already a project {slug!r}.") from error
        raise
    outbox.audit(
        by.ref,
        "project.create",
        resource_type="project",
        resource_id=project.pk,
        after=changes.of(project, "slug", "name", "description"),
    )
    return project


def place(user: User, ref: str) -> Place:
    """A project as a place of bindings, by id or slug; raise ``NotFound``."""
    project = references.find(Project.objects.visible_to(user), ref, what="project")
    return Place(scope=Scope.PROJECT, id=project.pk, name=project.name, project_id=project.pk)


def named(organization_id: UUID, slug: str) -> Place | None:
    """A project of an organization as a place of bindings, for what no person asks."""
    project = Project.objects.filter(organization=organization_id, slug=slug).first()
    if project is None:
        return None
    return Place(scope=Scope.PROJECT, id=project.pk, name=project.name, project_id=project.pk)
