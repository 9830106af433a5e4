from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.password_validation import validate_password
from django.db.models import QuerySet
from django.forms.models import ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextInputWidget,
)

from apps.identity.actor import Actor
from apps.identity.adminsite import (
    Glance,
    OwnRelatedFilter,
    Window,
    granted,
    keeping_rank,
    outranks,
    site,
)
from apps.identity.matrix import SCOPES
from apps.identity.models import ApiToken, Binding, Department, Organization, Proposal, User
from apps.identity.rest import page_actor
from apps.identity.services import departments, people, second_factor, tokens

_NAMES = ("username", "email", "first_name", "last_name")


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
        by, name = page_actor(request), form.cleaned_data["name"]
        if change:
            departments.rename(by=by, department=obj, name=name)
        else:
            obj.pk = departments.create(by=by, name=name).pk


class PersonForm(ModelForm[User]):
    password = forms.CharField(
        # Taken as it was typed, spaces and all.
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="At least 12 characters. The person chooses their own at the first sign-in.",
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
    list_display = [
        "username",
        "kind",
        "email",
        "first_name",
        "last_name",
        "is_active",
        "last_login",
    ]
    list_filter = ["kind", "is_active", ("departments", OwnRelatedFilter)]
    search_fields = ["username", "email", "first_name", "last_name"]
    fields = [
        "username",
        "kind",
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
    readonly_fields = ["kind", "last_login", "date_joined"]
    inlines = [BindingsGlance, TokensGlance]
    actions_detail = ["reset_second_factor"]

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        return list(self.inlines) if obj else []

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and not outranks(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        by, wanted = page_actor(request), form.cleaned_data
        if change:
            self._change(by, obj, form)
            return
        made = people.add(
            by=by,
            username=wanted["username"],
            email=wanted["email"],
            password=wanted["password"],
            first_name=wanted["first_name"],
            last_name=wanted["last_name"],
        )
        # What Django links to next is the row the service made.
        obj.pk, obj.organization_id = made.pk, made.organization_id

    def _change(self, by: Actor, user: User, form: Any) -> None:
        named = {name: form.cleaned_data[name] for name in form.changed_data if name in _NAMES}
        if named:
            people.edit(by=by, user=user, **named)
        if "is_active" in form.changed_data:
            act = people.reactivate if form.cleaned_data["is_active"] else people.deactivate
            act(by=by, user=user)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:  # noqa: FBT001
        """Departments carry roles: joining and leaving one are acts of their own."""
        for formset in formsets:
            self.save_formset(request, form, formset, change=change)
        if not change or "departments" not in form.changed_data:
            return
        by, user = page_actor(request), form.instance
        before, after = set(user.departments.all()), set(form.cleaned_data["departments"])
        with keeping_rank(request):
            for department in after - before:
                departments.add_member(by=by, department=department, user=user)
            for department in before - after:
                departments.remove_member(by=by, department=department, user=user)

    def has_reset_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return granted(request, "people.manage")

    @action(description="Reset second factor", permissions=["reset"], icon="phonelink_erase")
    def reset_second_factor(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asked with a page first: a link must not change anything."""
        user = self.row(request, object_id)
        if request.method != "POST":
            context = {
                "title": f"Reset the second factor of {user.username}?",
                "text": "They sign in with the password alone until they set up an app again. Make "
                "sure that it is really them who ask. Their browsers are signed out.",
                "submit": "Reset",
                "cancel": reverse("admin:identity_user_change", args=[user.pk]),
            }
            return self.page(request, "identity/admin_confirm.html", context)
        by = page_actor(request)
        self.attempt(
            request,
            lambda: second_factor.reset(by=by, user=user),
            done=f"{user.username} has no second factor any more.",
        )
        return self.back(user.pk)


@admin.register(Proposal, site=site)
class ProposalAdmin(Window):
    """What waits for a second person, and what came of it. Decided under /access/proposals."""

    section = "People"
    icon = "group_add"
    list_display = ["user", "requested_by", "state", "decided_by", "created_at", "expires_at"]
    list_filter = ["state"]
    list_select_related = ["user", "requested_by", "decided_by"]
    search_fields = ["=user__username", "=requested_by__username"]


class TokenForm(ModelForm[ApiToken]):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in SCOPES],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="What the token may do, at most. It never does more than you may.",
    )
    lifetime_days = forms.IntegerField(
        min_value=1, max_value=365, initial=90, widget=UnfoldAdminIntegerFieldWidget
    )
    networks = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Where it may be used from: addresses or CIDR, with spaces between. Empty: anywhere.",
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
    fields = [
        "name",
        "user",
        "key_id",
        "scopes",
        "allowed_networks",
        "expires_at",
        "revoked_at",
        "last_used_at",
    ]
    add_fieldsets = ((None, {"fields": ["name", "scopes", "lifetime_days", "networks"]}),)
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
            networks=wanted["networks"].replace(",", " ").split(),
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

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return granted(request, "people.manage")

    @admin.action(description="Revoke the chosen tokens", permissions=["revoke"])
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
