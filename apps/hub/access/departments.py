"""Departments: people who share roles."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.core.errors import AosError
from apps.hub.access import roster
from apps.hub.access.asking import Ask, Done, Field, ask
from apps.hub.access.desk import context, page_of
from apps.hub.visiting import HubRequest, may, person, signed_in
from apps.identity.errors import StepUpRequired
from apps.identity.models import Department, User
from apps.identity.rest import page_actor
from apps.identity.services import departments

_NAME = Field(name="name", label="Name", longest=120)
# Enough to choose from; others are added by their user name.
_LISTED = 500


@signed_in
@may("people.read")
@never_cache
@require_GET
def index(request: HubRequest) -> HttpResponse:
    found = roster.departments(person(request))
    told = context(request, tab="departments") | {"departments": found}
    return render(request, "hub/access/departments.html", told)


@signed_in
@may("people.read")
@never_cache
@require_GET
def one(request: HubRequest, department_id: UUID) -> HttpResponse:
    user = person(request)
    department = _find(request, department_id)
    members = department.members.order_by("username")
    others = User.objects.visible_to(user).filter(is_active=True).exclude(departments=department)
    told = {
        "department": department,
        "members": members,
        "others": others.order_by("username")[:_LISTED],
        "held": roster.of_department(department, to=user),
    }
    return render(request, "hub/access/department.html", context(request, tab="departments") | told)


def _find(request: HubRequest, department_id: UUID) -> Department:
    return get_object_or_404(Department.objects.visible_to(person(request)), pk=department_id)


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def create(request: HubRequest) -> HttpResponse:
    what = Ask(
        title="Make a department",
        text="Its members share the roles that you give it.",
        button="Make it",
        back=reverse("access_departments"),
        fields=(_NAME,),
    )

    def act(typed: QueryDict) -> Done:
        made = departments.create(by=page_actor(request), name=typed.get("name", ""))
        return Done(
            said=f"{made.name} is made. Add members, and give it a role.", href=page_of(made)
        )

    return ask(request, what, act)


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def rename(request: HubRequest, department_id: UUID) -> HttpResponse:
    department = _find(request, department_id)
    was = department.name
    what = Ask(
        title=f"Rename {was}",
        text="Its members and roles stay.",
        button="Rename",
        back=page_of(department),
        fields=(Field(name="name", label="Name", longest=120, value=was),),
    )

    def act(typed: QueryDict) -> Done:
        by = page_actor(request)
        departments.rename(by=by, department=department, name=typed.get("name", ""))
        return Done(said=f"{was} is called {department.name} now.", href=page_of(department))

    return ask(request, what, act)


@signed_in
@may("people.read")
@never_cache
@require_http_methods(["GET", "POST"])
def remove(request: HubRequest, department_id: UUID) -> HttpResponse:
    department = _find(request, department_id)
    what = Ask(
        title=f"Remove {department.name}?",
        text="Its members lose the roles it holds, and keep their own. Runs that needed them are "
        "cancelled.",
        button="Remove it",
        back=page_of(department),
        is_danger=True,
    )

    def act(_: QueryDict) -> Done:
        departments.remove(by=page_actor(request), department=department)
        return Done(said=f"{department.name} is removed.", href=reverse("access_departments"))

    return ask(request, what, act)


@signed_in
@may("people.read")
@require_POST
def join(request: HubRequest, department_id: UUID) -> HttpResponse:
    department = _find(request, department_id)
    visible = User.objects.visible_to(person(request))
    user = visible.filter(username=request.POST.get("username", "").strip()).first()
    if user is None:
        messages.error(request, "There is nobody of that user name.", extra_tags="bad")
        return redirect(page_of(department))
    try:
        departments.add_member(by=page_actor(request), department=department, user=user)
    except StepUpRequired:
        raise
    except AosError as error:
        messages.error(request, str(error), extra_tags="bad")
    else:
        messages.success(request, f"{user.username} belongs to {department.name} now.")
    return redirect(page_of(department))


@signed_in
@may("people.read")
@require_POST
def leave(request: HubRequest, department_id: UUID, user_id: UUID) -> HttpResponse:
    department = _find(request, department_id)
    user = get_object_or_404(department.members, pk=user_id)
    try:
        departments.remove_member(by=page_actor(request), department=department, user=user)
    except StepUpRequired:
        raise
    except AosError as error:
        messages.error(request, str(error), extra_tags="bad")
    else:
        messages.success(request, f"{user.username} belongs to {department.name} no longer.")
    return redirect(page_of(department))
