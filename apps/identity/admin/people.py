from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.password_validation import validate_password
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.forms.models import ModelForm
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
)

from apps.core import sql
from apps.core.errors import Conflict
from apps.identity.adminsite import Glance, OwnRelatedFilter, Window, keeping_rank, outranks, site
from apps.identity.matrix import SCOPES
from apps.identity.models import ApiToken, Binding, Department, Organization, User
from apps.identity.rest import page_actor
from apps.identity.services import people, tokens


@admin.register(Organization, site=site)
class OrganizationAdmin(Window):
    """One's own organization. Others are founded with manage.py."""

    section = "People"
    icon = "apartment"
    organization_path = "pk"
    change_action = "people.manage"
    list_display = ["name", "slug", "created_at"]
    fields = ["name", "slug", "created_at"]
    readonly_fields = ["slug", "created_at"]
    search_fields = ["name", "slug"]


@admin.register(Department, site=site)
class DepartmentAdmin(Window):
    section = "People"
    icon = "groups"
    add_action = change_action = "people.manage"
    list_display = ["name", "created_at"]
    fields = ["name"]
    search_fields = ["name"]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        obj.organization = page_actor(request).user.organization
        try:
            with transaction.atomic():
                super().save_model(request, obj, form, change)
        except IntegrityError as error:
            if sql.violated_constraint(error) == "identity_department_one_name_each":
                raise Conflict(reason=f"There is already a department {obj.name!r}.") from error
            raise


class PersonForm(ModelForm[User]):
    password = forms.CharField(
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="At least 12 characters. The person should change it after the first sign-in.",
    )

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password)
        return password


class BindingsGlance(Glance):
    model = Binding
    fields = ["role", "scope", "scope_id", "expires_at", "reason"]
    fk_name = "user"


class TokensGlance(Glance):
    model = ApiToken
    fields = ["name", "key_id", "scopes", "expires_at", "revoked_at", "last_used_at"]
    readonly_fields = ["key_id", "last_used_at"]


@admin.register(User, site=site)
class UserAdmin(Window):
    section = "People"
    icon = "person"
    add_form = PersonForm
    add_action = change_action = "people.manage"
    list_display = ["username", "email", "first_name", "last_name", "is_active", "last_login"]
    list_filter = ["is_active", ("departments", OwnRelatedFilter)]
    search_fields = ["username", "email", "first_name", "last_name"]
    fields = [
        "username",
        "email",
        "first_name",
        "last_name",
        "is_active",
        "departments",
        "last_login",
        "date_joined",
    ]
    add_fieldsets = (
        (None, {"fields": ["username", "email", "first_name", "last_name", "password"]}),
    )
    readonly_fields = ["last_login", "date_joined"]
    inlines = [BindingsGlance, TokensGlance]

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        return list(self.inlines) if obj else []

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and not outranks(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        if change:
            if obj == request.user and not obj.is_active:
                raise Conflict(reason="You cannot disable yourself.")
            super().save_model(request, obj, form, change)
            return
        wanted = form.cleaned_data
        made = people.add(
            by=page_actor(request),
            username=wanted["username"],
            email=wanted["email"],
            password=wanted["password"],
            first_name=wanted["first_name"],
            last_name=wanted["last_name"],
        )
        # What Django links to next is the row the service made.
        obj.pk, obj.organization_id = made.pk, made.organization_id

    def save_related(self, request: HttpRequest, *args: Any) -> None:
        """Departments carry roles: leaving one may cost more than it seems."""
        with keeping_rank(request):
            super().save_related(request, *args)


class TokenForm(ModelForm[ApiToken]):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in SCOPES],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="What the token may do, at most. It never does more than you may.",
    )
    lifetime_days = forms.IntegerField(
        min_value=1, max_value=365, initial=90, widget=UnfoldAdminIntegerFieldWidget
    )

    class Meta:
        model = ApiToken
        fields = ["name"]


@admin.register(ApiToken, site=site)
class ApiTokenAdmin(Window):
    """Tokens of the organization's people. One is issued for oneself; its value is shown once."""

    section = "People"
    icon = "vpn_key"
    add_form = TokenForm
    organization_path = "user__organization"
    add_action = "token.manage"
    list_display = ["name", "user", "key_id", "usable", "expires_at", "last_used_at"]
    list_filter = [("user", OwnRelatedFilter)]
    list_select_related = ["user"]
    search_fields = ["name", "=key_id", "user__username"]
    fields = ["name", "user", "key_id", "scopes", "expires_at", "revoked_at", "last_used_at"]
    add_fieldsets = ((None, {"fields": ["name", "scopes", "lifetime_days"]}),)
    actions = ["revoke"]

    @display(description="state", label={"usable": "success", "revoked": "danger"})
    def usable(self, token: ApiToken) -> str:
        return "revoked" if token.revoked_at else "usable"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        wanted = form.cleaned_data
        token, value = tokens.issue(
            by=page_actor(request),
            name=wanted["name"],
            scopes=wanted["scopes"],
            lifetime=timedelta(days=wanted["lifetime_days"]),
        )
        obj.pk = token.pk
        request.__dict__["_aos_token"] = value

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """The value goes into this one answer: not into a message, which waits in the session."""
        context = {
            "title": f"The token “{obj.name}” is issued",
            "token": obj,
            "value": request.__dict__["_aos_token"],
        }
        return self.page(request, "identity/admin_token.html", context)

    @admin.action(description="Revoke the chosen tokens")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        by = page_actor(request)
        chosen = list(queryset.select_related("user"))
        if any(outranks(request, token.user) for token in chosen):
            self.message_user(
                request, "A token of somebody above you cannot be revoked.", messages.ERROR
            )
            return
        for token in chosen:
            tokens.revoke(by=by, token=token)
        self.message_user(request, f"{len(chosen)} revoked.", messages.SUCCESS)
