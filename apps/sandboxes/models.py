"""Environments, and the record of sandboxes and of what hosts offer for them.

The drivers run in the machine room; here is only what people decide and what workers tell.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Self

from django.db import models
from django.db.models import Exists, Q
from django.db.models.functions import Now

from apps.core import clock
from apps.core.models import BaseModel
from apps.identity.models import Binding, Organization, User, reaching
from apps.projects.models import Project
from apps.sandboxes.types import EgressMode, Recipe, SandboxState

OVER: Final = (SandboxState.GONE, SandboxState.FAILED)
# How long one that failed is shown among those that there are.
_LATELY: Final = timedelta(days=1)


class SandboxQuerySet(models.QuerySet["Sandbox"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(reaching(user, project_ref="project_id")).filter(
            organization_id=user.organization_id
        )

    def alive(self) -> Self:
        """Those of which there may be something on a host."""
        return self.exclude(state__in=[*OVER, SandboxState.SNAPSHOTTED])

    def put_away(self) -> Self:
        """Those of which only the workspace is left, in the store of contents."""
        return self.filter(state=SandboxState.SNAPSHOTTED)

    def standing(self) -> Self:
        """Those that there are, those of which a workspace is kept, and those that failed lately."""
        lately = Q(state=SandboxState.FAILED, gone_at__gt=clock.now() - _LATELY)
        return self.filter(~Q(state__in=OVER) | lately)


class Sandbox(BaseModel):
    """One isolated place that runs one attempt's commands. Never used twice.

    One that waits warm is nobody's yet; the database keeps it to one attempt from then on.
    """

    organization_id = models.UUIDField(null=True)
    project_id = models.UUIDField(null=True)
    run_id = models.UUIDField(null=True)
    attempt = models.PositiveIntegerField(null=True)
    driver = models.CharField(max_length=16)
    isolation = models.CharField(max_length=16)
    image = models.CharField(max_length=200)
    profile = models.CharField(max_length=40, default="base")
    # Equal for warm sandboxes that are made alike, so that any of them will do.
    mould = models.CharField(max_length=64, blank=True, default="")
    worker = models.CharField(max_length=120)
    host = models.CharField(max_length=120, blank=True, default="")
    # The worker process that holds its line; a warm one goes when that process does.
    incarnation = models.UUIDField(null=True)
    container_id = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=16, choices=SandboxState, default=SandboxState.CREATING)
    claimed_at = models.DateTimeField(null=True)
    paused_at = models.DateTimeField(null=True)
    gone_at = models.DateTimeField(null=True)
    # The workspace that was put away, once it was: its archive in the store, and what is in it.
    sha256 = models.CharField(max_length=64, blank=True, default="")
    snapshot_size = models.BigIntegerField(default=0)
    snapshot_files = models.PositiveIntegerField(default=0)
    snapshot_left_out = models.PositiveIntegerField(default=0)
    # The one whose workspace this one began with.
    restored_from = models.UUIDField(null=True)

    objects = SandboxQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "sandboxes"
        indexes = [
            models.Index(fields=["run_id"], name="sandboxes_sandbox_of_run"),
            models.Index(
                fields=["incarnation", "mould", "id"],
                condition=Q(state=SandboxState.WARM),
                name="sandboxes_sandbox_waiting",
            ),
            # The few that are not over, among all that ever were: the reaper and the metrics ask.
            models.Index(
                fields=["state"],
                condition=~Q(state__in=OVER),
                name="sandboxes_sandbox_open",
            ),
            # Those that failed lately, for the list of what there is.
            models.Index(
                fields=["organization_id", "gone_at"],
                condition=Q(state=SandboxState.FAILED),
                name="sandboxes_sandbox_written_off",
            ),
            models.Index(
                fields=["sha256"],
                condition=Q(state=SandboxState.SNAPSHOTTED),
                name="sandboxes_sandbox_put_away",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~Q(state=SandboxState.WARM) | Q(run_id=None, organization_id=None),
                name="sandboxes_sandbox_warm_is_nobodys",
            ),
            models.CheckConstraint(
                condition=~Q(state=SandboxState.CLAIMED)
                | Q(run_id__isnull=False, organization_id__isnull=False, attempt__isnull=False),
                name="sandboxes_sandbox_claimed_is_somebodys",
            ),
            models.CheckConstraint(
                condition=~Q(state=SandboxState.SERVING) | Q(run_id=None),
                name="sandboxes_sandbox_serving_is_no_attempts",
            ),
            models.CheckConstraint(
                condition=~Q(state=SandboxState.SNAPSHOTTED)
                | Q(run_id__isnull=False, attempt__isnull=False) & ~Q(sha256=""),
                name="sandboxes_sandbox_put_away_has_content",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.driver} {self.pk} ({self.state})"

    @property
    def since(self) -> datetime:
        """When it came to be what it is; of one that was put away, when it had come to stand still."""
        return self.gone_at or self.paused_at or self.claimed_at or self.created_at


class EnvironmentQuerySet(models.QuerySet["Environment"]):
    def visible_to(self, user: User) -> Self:
        """Those of the person's projects, and, for whoever holds any role, those that all share."""
        shared = Q(project=None) & Q(Exists(Binding.objects.of(user)))
        reached = reaching(user, project_ref="project_id") | shared
        return self.filter(reached, organization=user.organization_id)

    def usable_in(self, project: Project) -> Self:
        return self.filter(
            Q(project=None) | Q(project=project), organization=project.organization_id
        )


class Environment(BaseModel):
    """What scripts run in: a profile of the operator's, limits, a way out, and plain variables.

    A version names one; each run gets it as it is when the run is accepted. One of a project goes
    before one of the organization that has the same name.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="environments"
    )
    # None: it belongs to the whole organization.
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, null=True, blank=True, related_name="environments"
    )
    name = models.CharField(max_length=40)
    description = models.CharField(max_length=500, blank=True)
    # What a new script starts with, here.
    is_default = models.BooleanField(default=False)
    profile = models.CharField(max_length=40, default="base")
    limits = models.JSONField(default=dict, blank=True)
    egress = models.JSONField(default=dict, blank=True)
    variables = models.JSONField(default=dict, blank=True)

    objects = EnvironmentQuerySet.as_manager()

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(
                name="sandboxes_environment_one_name_each",
                fields=["organization", "project", "name"],
                nulls_distinct=False,
            ),
            models.UniqueConstraint(
                name="sandboxes_environment_one_default_each",
                fields=["organization", "project"],
                condition=Q(is_default=True),
                nulls_distinct=False,
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            profile=self.profile,
            limits=self.limits,
            egress=self.egress or {"mode": EgressMode.NONE.value},
            variables=self.variables,
        )


class HostProfile(models.Model):
    """A profile as a host offers it. Its workers say so; it belongs to no organization."""

    host = models.CharField(max_length=120)
    name = models.CharField(max_length=40)
    image = models.CharField(max_length=200)
    runtime = models.CharField(max_length=16)
    egress = models.CharField(max_length=16, choices=EgressMode)
    # What a sandbox gets that asks for nothing, and the most it may ask for.
    gets = models.JSONField()
    most = models.JSONField()
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "sandboxes_host_profile"
        ordering = ["name", "host"]
        constraints = [
            models.UniqueConstraint(name="sandboxes_host_profile_once", fields=["host", "name"])
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"


class HostImage(models.Model):
    """An image as a host's engine has it, or lacks it. The same holds for who writes it."""

    host = models.CharField(max_length=120)
    tag = models.CharField(max_length=200)
    # The folder below sandbox_images/ it is built from; empty for somebody else's.
    source = models.CharField(max_length=40, blank=True)
    digest = models.CharField(max_length=100, blank=True)
    size = models.BigIntegerField(default=0)
    built_at = models.DateTimeField(null=True)
    base = models.CharField(max_length=200, blank=True)
    is_current = models.BooleanField(null=True)
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "sandboxes_host_image"
        ordering = ["tag", "host"]
        constraints = [
            models.UniqueConstraint(name="sandboxes_host_image_once", fields=["host", "tag"])
        ]

    def __str__(self) -> str:
        return f"{self.tag} on {self.host}"
