"""Projects, their files, and who holds which role over them or over the whole organization."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.forms.models import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget

from apps.identity import policy
from apps.identity.adminsite import (
    Glance,
    OwnRelatedFilter,
    Window,
    keeping_rank,
    offer,
    own,
    site,
)
from apps.identity.models import Binding
from apps.identity.rest import page_actor
from apps.identity.services import bindings
from apps.identity.types import RANK, Role, Scope
from apps.projects.models import Project, WorkspaceFile
from apps.projects.services import files, projects


class FilesGlance(Glance):
    model = WorkspaceFile
    fields = ["name", "size", "media_type", "sha256", "updated_at"]
    readonly_fields = ["updated_at"]


@admin.register(Project, site=site)
class ProjectAdmin(Window):
    section = "Work"
    icon = "folder"
    add_action = change_action = "project.manage"
    list_display = ["name", "slug", "runs_link", "created_at"]
    search_fields = ["name", "slug"]
    fields = ["name", "slug", "description", "created_at"]
    add_fieldsets = ((None, {"fields": ["name", "slug", "description"]}),)
    readonly_fields = ["created_at"]
    inlines = [FilesGlance]

    @display(description="runs")
    def runs_link(self, project: Project) -> str:
        url = reverse("admin:runs_run_changelist")
        return format_html('<a href="{}?project__id__exact={}">runs</a>', url, project.pk)

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        return list(self.inlines) if obj else []

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        # Addresses and scripts name a project by its slug: it stays.
        return [*self.readonly_fields, "slug"] if obj else list(self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        if change:
            super().save_model(request, obj, form, change)
            return
        obj.pk = projects.create(
            by=page_actor(request), slug=obj.slug, name=obj.name, description=obj.description
        ).pk


class UploadForm(ModelForm[WorkspaceFile]):
    upload = forms.FileField(
        widget=UnfoldAdminFileFieldWidget,
        help_text="A file of the same name is replaced; runs keep the content they were given.",
    )

    class Meta:
        model = WorkspaceFile
        fields = ["project"]


@admin.register(WorkspaceFile, site=site)
class WorkspaceFileAdmin(Window):
    section = "Work"
    icon = "draft"
    add_form = UploadForm
    organization_path = "project__organization"
    add_action = "file.write"
    list_display = ["name", "project", "size", "media_type", "updated_at"]
    list_filter = [("project", OwnRelatedFilter)]
    list_select_related = ["project"]
    search_fields = ["name", "=sha256"]
    fields = ["project", "name", "size", "media_type", "sha256", "created_at", "updated_at"]
    add_fieldsets = ((None, {"fields": ["project", "upload"]}),)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        upload = form.cleaned_data["upload"]
        stored = files.put(
            by=page_actor(request), project=obj.project, name=upload.name, chunks=upload.chunks()
        )
        obj.pk, obj.name = stored.pk, stored.name


class BindingForm(ModelForm[Binding]):
    """Offers no role above one's own, and projects of one's own organization."""

    actor_rank = 0
    project = forms.ModelChoiceField(
        queryset=Project.objects.none(),
        required=False,
        empty_label="The whole organization",
        widget=UnfoldAdminSelectWidget,
    )

    class Meta:
        model = Binding
        fields = ["user", "department", "role", "expires_at", "reason"]

    def clean_role(self) -> str:
        role: str = self.cleaned_data["role"]
        if RANK[Role(role)] > self.actor_rank:
            raise forms.ValidationError("You cannot grant a role above your own.")
        return role

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if bool(cleaned.get("user")) == bool(cleaned.get("department")):
            raise forms.ValidationError("Choose either a person or a department.")
        return cleaned


@admin.register(Binding, site=site)
class BindingAdmin(Window):
    """Who holds which role where. Nobody grants or removes a role above their own."""

    section = "People"
    icon = "key"
    add_form = BindingForm
    id_columns = ("pk", "scope_id", "user_id")
    add_action = delete_action = "people.manage"
    list_display = ["holder", "role", "scope", "where", "expires_at", "reason"]
    list_filter = ["role", "scope"]
    list_select_related = ["user", "department", "organization"]
    search_fields = ["user__username", "department__name", "reason"]
    fields = ["user", "department", "role", "scope", "scope_id", "expires_at", "reason"]
    add_fieldsets = (
        (None, {"fields": ["user", "department", "role", "project", "expires_at", "reason"]}),
    )

    @display(description="holder")
    def holder(self, binding: Binding) -> str:
        return str(binding.user or binding.department)

    @display(description="where")
    def where(self, binding: Binding) -> str:
        if binding.scope == Scope.ORGANIZATION:
            return str(binding.organization)
        url = reverse("admin:projects_project_change", args=[binding.scope_id])
        return format_html('<a href="{}">{}</a>', url, binding.scope_id)

    def fit_add_form(
        self, request: HttpRequest, form: type[ModelForm[Any]]
    ) -> type[ModelForm[Any]]:
        offer(form, "project", own(Project, request, self.admin_site))
        return type(
            form.__name__, (form,), {"actor_rank": policy.standing(page_actor(request).user)}
        )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        by, project = page_actor(request), form.cleaned_data["project"]
        with keeping_rank(request):
            obj.pk = bindings.grant(
                by=by,
                subject=obj.user or obj.department,
                role=Role(obj.role),
                place=projects.place(by.user, str(project.pk)) if project else None,
                expires_at=obj.expires_at,
                reason=obj.reason,
            ).pk

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and RANK[Role(obj.role)] > policy.standing(page_actor(request).user):
            return False
        return super().has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with keeping_rank(request):
            bindings.revoke(by=page_actor(request), binding=obj)
