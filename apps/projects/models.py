"""Projects: where runs, their input files and their events live."""

from __future__ import annotations

from typing import Self

from django.core.validators import RegexValidator
from django.db import models

from apps.core.models import BaseModel
from apps.identity.models import Organization, User, reaching
from apps.identity.types import Role

# A plain name: no folder, no leading dot, nothing a shell or a browser would read as something else.
FILE_NAME = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9 ._-]{0,119}\Z",
    "Use letters, digits, spaces, dots, dashes and underscores; start with a letter or digit.",
)


class ProjectQuerySet(models.QuerySet["Project"]):
    def visible_to(self, user: User, *, role: Role = Role.VIEWER) -> Self:
        """Projects of the person's organization in which they hold at least ``role``."""
        return self.filter(reaching(user, project_ref="pk", role=role)).filter(
            organization=user.organization_id
        )


class Project(BaseModel):
    """What a team owns together: its runs, files and events."""

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="projects"
    )
    slug = models.SlugField(max_length=64)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(
                name="projects_project_one_slug_each", fields=["organization", "slug"]
            )
        ]

    def __str__(self) -> str:
        return self.name


class WorkspaceFileQuerySet(models.QuerySet["WorkspaceFile"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(project__in=Project.objects.visible_to(user))


class WorkspaceFile(BaseModel):
    """A file people put into a project for its runs. A run keeps the content it was given."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="files")
    name = models.CharField(max_length=120, validators=[FILE_NAME])
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()
    media_type = models.CharField(max_length=100)

    objects = WorkspaceFileQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                name="projects_workspacefile_one_name_each", fields=["project", "name"]
            )
        ]
        indexes = [models.Index(fields=["sha256"], name="projects_workspacefile_of_sum")]

    def __str__(self) -> str:
        return self.name
