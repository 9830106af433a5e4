from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.forms.models import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import action, display

from apps.agents.models import Agent, AgentVersion
from apps.agents.services import registry, removal
from apps.identity.adminsite import Glance, OwnRelatedFilter, Window, granted, site
from apps.identity.rest import page_actor

_STATES = {"draft": "warning", "released": "success"}


class VersionsGlance(Glance):
    model = AgentVersion
    fk_name = "agent"
    fields = ["number", "state", "released_at", "released_by", "created_at"]
    readonly_fields = ["state", "released_at", "released_by", "created_at"]
    ordering = ["-number"]
    per_page = 20

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("agent", "released_by").defer("spec")


@admin.register(Agent, site=site)
class AgentAdmin(Window):
    section = "Work"
    icon = "smart_toy"
    add_action = change_action = delete_action = "agent.manage"
    list_display = ["title", "slug", "kind", "version", "runs_link", "updated_at"]
    list_filter = ["kind"]
    list_select_related = ["current"]
    search_fields = ["title", "slug"]
    fields = ["title", "slug", "description", "kind", "current", "created_at"]
    add_fieldsets = ((None, {"fields": ["title", "slug", "description", "kind"]}),)
    readonly_fields = ["current", "created_at"]
    inlines = [VersionsGlance]
    actions_detail = ["submit"]
    actions_row = ["submit"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(removed_at=None).defer("current__spec")

    @display(description="current", ordering="current__number")
    def version(self, agent: Agent) -> str:
        return f"v{agent.current.number}" if agent.current else "not released"

    @display(description="runs")
    def runs_link(self, agent: Agent) -> str:
        url = reverse("admin:runs_run_changelist")
        query = f"agent_version__agent__id__exact={agent.pk}"
        return format_html('<a href="{}?{}">runs</a>', url, query)

    def has_submit_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return granted(request, "run.submit")

    @action(description="Submit a run", permissions=["submit"], icon="play_arrow")
    def submit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Runs are made a storey above; this leads to their form with the agent chosen."""
        agent = self.row(request, object_id)
        return redirect(f"{reverse('admin:runs_run_add')}?agent={agent.pk}")

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        return list(self.inlines) if obj else []

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        fixed = ["slug", "kind"] if obj else []
        return [*self.readonly_fields, *fixed]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        if change:
            super().save_model(request, obj, form, change)
            return
        obj.pk = registry.register(
            by=page_actor(request),
            slug=obj.slug,
            title=obj.title,
            description=obj.description,
            kind=obj.kind,
        ).pk

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Versions and runs stay, so nothing stands in the way but what the service says."""
        return [str(obj) for obj in objs], {"agents": len(objs)}, set(), []

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        removal.remove(by=page_actor(request), agent=obj)


class DraftForm(ModelForm[AgentVersion]):
    spec = forms.JSONField(
        help_text="Entry, files, command, input schema, artifacts and limits, as JSON."
    )

    class Meta:
        model = AgentVersion
        fields = ["agent", "spec"]

    def clean_spec(self) -> dict[str, Any]:
        spec = self.cleaned_data["spec"]
        if not isinstance(spec, dict):
            raise forms.ValidationError("The spec is a JSON object.")
        return spec


@admin.register(AgentVersion, site=site)
class AgentVersionAdmin(Window):
    """Versions: drafted, then released; a released one never changes."""

    section = "Work"
    icon = "history"
    add_form = DraftForm
    organization_path = "agent__organization"
    add_action = "agent.manage"
    list_display = ["label", "tone", "released_at", "released_by", "created_at"]
    list_filter = ["state", ("agent", OwnRelatedFilter)]
    list_select_related = ["agent", "released_by"]
    search_fields = ["agent__slug", "agent__title"]
    ordering = ["-id"]
    fields = [
        "agent",
        "number",
        "state",
        "released_at",
        "released_by",
        "created_at",
        "source",
        "limits",
    ]
    add_fieldsets = ((None, {"fields": ["agent", "spec"]}),)
    readonly_fields = ["source", "limits"]
    actions_detail = ["release"]

    @display(description="version", ordering="agent__slug")
    def label(self, version: AgentVersion) -> str:
        return str(version)

    @display(description="state", label=_STATES, ordering="state")
    def tone(self, version: AgentVersion) -> str:
        return version.state

    @display(description="source")
    def source(self, version: AgentVersion) -> SafeString:
        """Each file as it will lie in the sandbox."""
        return format_html_join(
            "",
            '<details open class="mb-4"><summary class="font-semibold">{}</summary>'
            '<pre class="overflow-auto text-xs whitespace-pre">{}</pre></details>',
            sorted(version.spec.get("files", {}).items()),
        )

    @display(description="all else")
    def limits(self, version: AgentVersion) -> SafeString:
        rest = {name: value for name, value in version.spec.items() if name != "files"}
        text = json.dumps(rest, indent=2, ensure_ascii=False)
        return format_html('<pre class="overflow-auto text-xs whitespace-pre-wrap">{}</pre>', text)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        version = registry.draft(by=page_actor(request), agent=obj.agent, spec=obj.spec)
        obj.pk, obj.number = version.pk, version.number

    def has_release_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return granted(request, "agent.manage")

    @action(description="Release this version", permissions=["release"], icon="rocket_launch")
    def release(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make it current. Asked with a page first: a link must not change anything."""
        version = self.row(request, object_id)
        if request.method != "POST":
            context = {
                "title": f"Release {version}?",
                "text": "New runs will use it. A released version never changes again.",
                "submit": "Release",
                "cancel": reverse("admin:agents_agentversion_change", args=[version.pk]),
            }
            return self.page(request, "identity/admin_confirm.html", context)
        by = page_actor(request)
        self.attempt(
            request,
            lambda: registry.release(by=by, version=version),
            done=f"{version} is released and current.",
        )
        return self.back(version.pk)
