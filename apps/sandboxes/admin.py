from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.forms.models import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from apps.identity.adminsite import OwnRelatedFilter, Window, granted, site
from apps.identity.rest import page_actor
from apps.sandboxes.models import Environment, HostImage, HostProfile, Sandbox
from apps.sandboxes.services import environments
from apps.sandboxes.types import Recipe

_STATES = {
    "creating": "info",
    "warm": "info",
    "claimed": "success",
    "serving": "success",
    "paused": "warning",
    "snapshotted": "warning",
    "destroying": "warning",
    "failed": "danger",
}


@admin.register(Sandbox, site=site)
class SandboxAdmin(Window):
    """Which attempt ran where, and how isolated. The machine room writes these rows."""

    section = "Motion"
    icon = "deployed_code"
    organization_path = "organization_id"
    id_columns = ("pk", "run_id", "project_id")
    list_display = ["created_at", "profile", "isolation", "tone", "run", "attempt", "worker"]
    list_filter = ["state", "profile", "driver", "isolation"]
    search_fields = ["worker", "=container_id"]
    ordering = ["-id"]

    @display(description="state", label=_STATES, ordering="state")
    def tone(self, sandbox: Sandbox) -> str:
        return sandbox.state

    @display(description="run")
    def run(self, sandbox: Sandbox) -> SafeString | str:
        if sandbox.run_id is None:
            return ""
        runs = reverse("admin:runs_run_changelist")
        return format_html('<a href="{}?q={}">{}</a>', runs, sandbox.run_id, sandbox.run_id)


class EnvironmentForm(ModelForm[Environment]):
    profile = forms.CharField(max_length=40, help_text="One that a host offers.")
    limits = forms.JSONField(
        required=False, help_text="memory_mb, cpu, pids, workspace_mb; the rest is the profile's."
    )
    egress = forms.JSONField(
        initial={"mode": "none"},
        help_text='{"mode": "none"}, {"mode": "allowlist", "allow": ["host"]} or {"mode": "open"}.',
    )
    variables = forms.JSONField(
        required=False,
        help_text="Names and texts. Plain: everybody who sees the environment sees them.",
    )

    class Meta:
        model = Environment
        fields = ["name", "project", "description", "profile", "limits", "egress", "variables"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name in ("limits", "egress", "variables"):
            value = cleaned.get(name)
            if name in cleaned and not isinstance(value or {}, dict):
                self.add_error(name, "This is a JSON object.")
            cleaned[name] = value or {}
        return cleaned


@admin.register(Environment, site=site)
class EnvironmentAdmin(Window):
    """What scripts run in. Runs keep what they were given when they were accepted."""

    section = "Work"
    icon = "deployed_code"
    form = EnvironmentForm
    add_action = change_action = delete_action = "environment.manage"
    list_display = ["name", "project", "profile", "network", "is_default", "updated_at"]
    list_filter = [("project", OwnRelatedFilter), "is_default"]
    list_select_related = ["project"]
    search_fields = ["name", "description"]
    fields = [
        "name",
        "project",
        "description",
        "profile",
        "limits",
        "egress",
        "variables",
        "is_default",
        "created_at",
    ]
    readonly_fields = ["is_default", "created_at"]
    actions = ["make_default"]

    @display(description="network")
    def network(self, environment: Environment) -> str:
        return str(environment.recipe.egress["mode"])

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        # Versions call it by its name, and it stays where it is.
        return [*self.readonly_fields, *(["name", "project"] if obj else [])]

    def has_manage_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return granted(request, "environment.manage")

    @admin.action(description="Let new scripts start with it", permissions=["manage"])
    def make_default(self, request: HttpRequest, queryset: QuerySet[Environment]) -> None:
        for environment in queryset[:1]:
            environments.make_default(by=page_actor(request), environment=environment)
            self.message_user(request, f"New scripts start with {environment.name}.")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        by = page_actor(request)
        recipe = Recipe(
            profile=obj.profile, limits=obj.limits, egress=obj.egress, variables=obj.variables
        )
        if change:
            environments.change(by=by, environment=obj, recipe=recipe, description=obj.description)
        else:
            obj.pk = environments.create(
                by=by,
                name=obj.name,
                project=obj.project,
                description=obj.description,
                recipe=recipe,
            ).pk

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        environments.remove(by=page_actor(request), environment=obj)


@admin.register(HostProfile, site=site)
class HostProfileAdmin(Window):
    """What environments can be made of on each host. Workers write these rows."""

    section = "Motion"
    icon = "tune"
    organization_path = None
    list_display = ["name", "host", "image", "runtime", "egress", "seen_at"]
    list_filter = ["name", "host"]
    search_fields = ["name", "host"]
    ordering = ["name", "host"]


@admin.register(HostImage, site=site)
class HostImageAdmin(Window):
    """Which sandbox images each host has. Workers write these rows."""

    section = "Motion"
    icon = "layers"
    organization_path = None
    list_display = ["tag", "host", "digest", "size", "built_at", "is_current", "seen_at"]
    list_filter = ["host", "is_current"]
    search_fields = ["tag", "=digest"]
    ordering = ["tag", "host"]
