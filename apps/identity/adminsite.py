"""The admin site and what every window in it has in common.

Django's own flags and permissions are not asked here: the one matrix is. A row of another
organization does not exist, in lists, in forms, in filters and under a typed address alike. What
people change is written to the audit trail in the same transaction, by the service that does it or
by the form's own saving below.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, wraps
from typing import Any, ClassVar, Final
from uuid import UUID

from csp.decorators import csp_replace
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import RelatedFieldListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import unquote
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import DataError, models, transaction
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import reverse
from unfold.admin import ModelAdmin, TabularInline
from unfold.sites import UnfoldAdminSite

from apps.core.errors import AosError, Conflict
from apps.events.services import changes, outbox
from apps.identity import denials, policy
from apps.identity.actor import Actor
from apps.identity.errors import StepUpRequired
from apps.identity.models import User
from apps.identity.rest import page_actor

# Unfold's Alpine.js evaluates the expressions in its templates; our own pages never need this.
_POLICY: Final = {
    "default-src": ["'none'"],
    "script-src": ["'self'", "'unsafe-eval'"],
    "style-src": ["'self'", "'unsafe-inline'"],
    "img-src": ["'self'", "data:"],
    "font-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
}
SECTIONS: Final = ("Work", "Motion", "Records", "People")
_ELSEWHERE: Final = (
    ("Chat Hub", "forum", "/"),
    ("Flower", "stacks", "/flower/"),
    ("API docs", "menu_book", "/api/docs"),
)

View = Callable[..., HttpResponse]
Figures = Callable[[HttpRequest], Sequence[tuple[str, object, str]]]


def granted(request: HttpRequest, action: str) -> bool:
    """Whether the signed-in person may do this in their organization."""
    if not isinstance(request.user, User):
        return False
    return policy.allows(Actor(user=request.user), action)


def organization_of(request: HttpRequest) -> UUID:
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user.organization_id


def outranks(request: HttpRequest, user: User | None) -> bool:
    """Whether the other person stands above the one who asks: then hands off."""
    if user is None:
        return False
    me = page_actor(request).user
    return user != me and policy.highest(user) > policy.standing(me)


@contextmanager
def keeping_rank(request: HttpRequest) -> Iterator[None]:
    """Refuse a change by which the person would lose their own highest role.

    So an organization always keeps an owner: the one who removed the others.
    """
    user = page_actor(request).user
    before = policy.highest(user)
    with transaction.atomic():
        yield
        if policy.highest(user) < before:
            raise Conflict(reason="You cannot take your own role away; ask somebody who holds it.")


class Site(UnfoldAdminSite):  # type: ignore[misc]  # untyped base
    index_title = "Overview"
    index_template = "identity/admin_index.html"
    enable_nav_sidebar = True

    def __init__(self) -> None:
        super().__init__(name="admin")
        # Apps above this one add to the overview: label, value, and where it leads.
        self.figures: list[Figures] = []

    def has_permission(self, request: HttpRequest) -> bool:
        return granted(request, "admin.view")

    def admin_view(self, view: View, cacheable: bool = False) -> View:  # noqa: FBT001, FBT002  # Django's signature
        inner: View = super().admin_view(view, cacheable)

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            if not self.has_permission(request):
                denials.note(page_actor(request).ref, "admin.view", reason="not_allowed")
                raise PermissionDenied
            return inner(request, *args, **kwargs)

        return csp_replace(_POLICY)(guarded)  # type: ignore[return-value]

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return redirect_to_login(request.GET.get("next", reverse("admin:index")))

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context: dict[str, Any] = super().each_context(request)
        return context | {
            "site_title": "AOS admin",
            "site_header": "AOS",
            "site_subheader": "Registry, runs and records",
            "site_symbol": "hub",
            "site_favicons": [{"rel": "icon", "href": static("hub/img/favicon.svg")}],
            "environment": [settings.AOS_ENVIRONMENT, "info"],
            "show_back_button": True,
        }

    def index(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        figures = [figure for make in self.figures for figure in make(request)]
        answer: HttpResponse = super().index(request, (extra_context or {}) | {"figures": figures})
        return answer

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [
            {"title": "", "items": [_item("Overview", "dashboard", "admin:index", request)]}
        ]
        for section in SECTIONS:
            admins = [
                admin
                for admin in self._registry.values()
                if getattr(admin, "section", "") == section
            ]
            items = [_item_of(admin, request) for admin in admins]
            groups.append({"title": section, "separator": True, "items": items})
        elsewhere = [
            {"title": title, "icon": icon, "link": link, "active": False, "has_permission": True}
            for title, icon, link in _ELSEWHERE
        ]
        return [*groups, {"title": "Elsewhere", "separator": True, "items": elsewhere}]


def _item(title: str, icon: str, route: str, request: HttpRequest) -> dict[str, Any]:
    link = reverse(route)
    active = request.path == link if route == "admin:index" else request.path.startswith(link)
    return {"title": title, "icon": icon, "link": link, "active": active, "has_permission": True}


def _item_of(admin: Any, request: HttpRequest) -> dict[str, Any]:
    meta = admin.model._meta
    route = f"admin:{meta.app_label}_{meta.model_name}_changelist"
    return _item(str(meta.verbose_name_plural).capitalize(), admin.icon, route, request)


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts to ten thousand and no further: nobody turns to page two hundred, and counting all
    of a big table would cost more than the page."""

    CAP: Final = 10_000

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[: self.CAP].count())


class OwnRelatedFilter(RelatedFieldListFilter):
    """A filter by another row, offering those of one's own organization only."""

    def field_choices(
        self, field: Any, request: HttpRequest, model_admin: Any
    ) -> list[tuple[str, Any]]:
        rows = own(field.remote_field.model, request, model_admin.admin_site)
        return [(str(row.pk), str(row)) for row in rows[:200]]


def own(model: type[models.Model], request: HttpRequest, admin_site: Any) -> QuerySet[Any]:
    """The rows of a model that this person's admin shows; none when it has no window there."""
    admin = admin_site._registry.get(model)  # noqa: SLF001  # the site's public API lacks look-up
    if admin is None:
        return QuerySet(model).none()
    rows: QuerySet[Any] = admin.get_queryset(request)
    return rows


def offer(form: Any, field: str, rows: QuerySet[Any]) -> None:
    """Let a form offer these rows. The field is copied first: a declared one is shared by all
    requests, and another person's request may be under way."""
    mine = copy.deepcopy(form.base_fields[field])
    mine.queryset = rows
    # Both: the one is used, the other is what a subclass would inherit.
    form.base_fields[field] = form.declared_fields[field] = mine


class Window(ModelAdmin):  # type: ignore[misc]  # untyped base
    """A list and a form on one table: rows of one's own organization, read-only by default."""

    section: ClassVar[str] = "Records"
    icon: ClassVar[str] = "table"
    # The look-up that leads from a row to its organization; ``None`` for rows of the platform.
    organization_path: ClassVar[str | None] = "organization"
    # Columns that a pasted id finds at once.
    id_columns: ClassVar[Sequence[str]] = ("pk",)
    # The action of the matrix that each act needs; ``None`` means nobody may, here.
    add_action: ClassVar[str | None] = None
    change_action: ClassVar[str | None] = None
    delete_action: ClassVar[str | None] = None

    # The form for a new row, where it is not the one that shows a row.
    add_form: ClassVar[type[forms.ModelForm[Any]] | None] = None

    paginator = CappedPaginator
    show_full_result_count = False
    list_per_page = 50
    actions_on_top = True
    # The platform's bulk deletion would skip the services.
    actions: Sequence[Any] = []

    # --- who may what

    def has_module_permission(self, request: HttpRequest) -> bool:
        return granted(request, "admin.view")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return granted(request, "admin.view")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.add_action is not None and granted(request, self.add_action)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.change_action is not None and granted(request, self.change_action)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.delete_action is not None and granted(request, self.delete_action)

    # --- which rows

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        if self.organization_path is None:
            return rows
        return rows.filter(**{self.organization_path: organization_of(request)})

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """A pasted id is looked up by index; anything else is searched for as text."""
        term = search_term.strip().replace("\x00", "")
        try:
            value = UUID(term)
        except ValueError:
            found: tuple[QuerySet[Any], bool] = super().get_search_results(request, queryset, term)
            return found
        matches = Q()
        for column in self.id_columns:
            matches |= Q(**{column: value.hex if column.endswith("trace_id") else value})
        return queryset.filter(matches), False

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """A filter in the address that no row can match, such as a year after the last, is dropped with a
        word, as Django drops those it cannot read."""
        try:
            return super().get_changelist_instance(request)
        except (ValueError, OverflowError, DataError) as error:
            if not request.GET:
                raise
            raise IncorrectLookupParameters from error

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs.setdefault("queryset", own(db_field.related_model, request, self.admin_site))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs.setdefault("queryset", own(db_field.related_model, request, self.admin_site))
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    # --- changes

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Mapping[str, Any] | None = None,
    ) -> HttpResponse:
        """What a service refuses is shown on the form, with everything that was typed."""
        try:
            answer: HttpResponse = super().changeform_view(
                request, object_id, form_url, extra_context
            )
        except StepUpRequired:
            raise  # a page of its own asks for the proof
        except AosError as error:
            request.__dict__["_aos_refusal"] = str(error)
            answer = super().changeform_view(request, object_id, form_url, extra_context)
        return answer

    def get_form(
        self,
        request: HttpRequest,
        obj: Any = None,
        change: bool = False,  # noqa: FBT001, FBT002  # Django's signature
        **kwargs: Any,
    ) -> type[forms.ModelForm[Any]]:
        if obj is None and self.add_form is not None:
            kwargs["form"] = self.add_form
        form: type[forms.ModelForm[Any]] = super().get_form(request, obj, change, **kwargs)
        if obj is None:
            form = self.fit_add_form(request, form)
        refusal = request.__dict__.get("_aos_refusal")
        return _refused(form, refusal) if refusal else form

    def fit_add_form(
        self, request: HttpRequest, form: type[forms.ModelForm[Any]]
    ) -> type[forms.ModelForm[Any]]:
        """Narrow what the form for a new row offers to what this person may choose."""
        return form

    def delete_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: Mapping[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            answer: HttpResponse = super().delete_view(request, object_id, extra_context)
        except StepUpRequired:
            raise
        except AosError as error:
            self.message_user(request, str(error), messages.ERROR)
            return self.back(object_id)
        return answer

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's
        """Save just what was changed (others write to the same row), and say who did it."""
        columns = {field.name for field in obj._meta.concrete_fields}
        named = [name for name in form.changed_data if name in columns]
        if change:
            changed = columns & {*form.changed_data, "updated_at"}
            obj.save(update_fields=sorted(changed))
        else:
            obj.save(force_insert=True)
        self.note(
            request,
            "change" if change else "create",
            obj,
            before={name: form.initial.get(name) for name in named} if change else None,
            after=changes.of(obj, *named),
            fields=form.changed_data,
        )

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with transaction.atomic():
            self.note(request, "delete", obj, row=str(obj))
            obj.delete()

    def note(
        self,
        request: HttpRequest,
        verb: str,
        obj: Any,
        *,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
        **detail: object,
    ) -> None:
        """Write the audit entry of a change that no service makes."""
        noun = obj._meta.model_name
        outbox.audit(
            page_actor(request).ref,
            f"{noun}.{verb}",
            resource_type=noun,
            resource_id=obj.pk,
            detail=detail,
            before=before,
            after=after,
        )

    def resource_id(self, obj: Any) -> str:
        """What audit entries call the row."""
        return str(obj.pk)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """The audit trail is the history."""
        entries = reverse("admin:events_auditentry_changelist")
        return redirect(f"{entries}?q={self.resource_id(self.row(request, object_id))}")

    # Django would keep a second, weaker trail beside the audit's.

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:
        return None

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:
        return None

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:
        return None

    def attempt(self, request: HttpRequest, act: Callable[[], object], *, done: str) -> bool:
        """Call a service for an action; tell the person what came of it."""
        try:
            act()
        except AosError as error:
            self.message_user(request, str(error), messages.ERROR)
            return False
        self.message_user(request, done, messages.SUCCESS)
        return True

    def row(self, request: HttpRequest, object_id: str) -> Any:
        """One row by the id in an address; somebody else's is as absent as a made-up one."""
        found = self.get_object(request, unquote(object_id))
        if found is None:
            raise Http404
        return found

    def page(
        self, request: HttpRequest, template: str, context: Mapping[str, Any]
    ) -> TemplateResponse:
        """A page of our own within the admin's frame. It may hold what is shown once."""
        frame = self.admin_site.each_context(request) | {"opts": self.model._meta}
        return TemplateResponse(
            request, template, frame | dict(context), headers={"Cache-Control": "no-store"}
        )

    def back(self, *args: object) -> HttpResponse:
        """To the row's page, or to the list."""
        meta = self.model._meta
        page = "change" if args else "changelist"
        return redirect(f"admin:{meta.app_label}_{meta.model_name}_{page}", *args)


def _refused(form: type[forms.ModelForm[Any]], refusal: str) -> type[forms.ModelForm[Any]]:
    def clean(self: forms.ModelForm[Any]) -> None:
        super(refused, self).clean()
        raise ValidationError(refusal)

    refused: type[forms.ModelForm[Any]] = type(form.__name__, (form,), {"clean": clean})
    return refused


class Glance(TabularInline):  # type: ignore[misc]  # untyped base
    """Rows that belong to the one shown: to look at, each with a link to its own page."""

    extra = 0
    max_num = 0
    can_delete = False
    show_change_link = True

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return granted(request, "admin.view")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


site = Site()
