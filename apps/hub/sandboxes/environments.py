"""Environments: the list, one of them, and the form that makes and changes them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.agents.models import Agent
from apps.core.errors import AosError, Conflict, Invalid
from apps.hub.sandboxes import forms
from apps.hub.sandboxes.desk import context, may_manage
from apps.hub.sandboxes.forms import ALL, HERE
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity.models import User
from apps.identity.rest import page_actor
from apps.projects.models import Project
from apps.sandboxes.models import Environment
from apps.sandboxes.services import environments as services
from apps.sandboxes.services import offers


@signed_in
@require_GET
def index(request: HubRequest) -> HttpResponse:
    told = context(request, tab="environments")
    project = told["project"]
    found = _visible(person(request))
    told["environments"] = found.usable_in(project) if project else found.filter(project=None)
    told["may_make"] = bool(_places(request, project))
    return render(request, "hub/sandboxes/environments.html", told)


@signed_in
@require_GET
def one(request: HubRequest, environment_id: UUID) -> HttpResponse:
    found = _found(request, environment_id)
    told = context(request, tab="environments", project=found.project)
    offer = offers.profiles().get(found.profile)
    told |= {
        "environment": found,
        "offer": offer,
        "limits": forms.of(found, offered={found.profile: offer} if offer else {}, place="").limits,
        "egress": found.recipe.egress,
        "users": _naming(person(request), found),
        "may_manage": may_manage(request, found.project),
        "places": _places(request, told["project"]),
        "all": ALL,
    }
    return render(request, "hub/sandboxes/environment.html", told)


@signed_in
@require_http_methods(["GET", "POST"])
def new(request: HubRequest) -> HttpResponse:
    told = context(request, tab="environments")
    places = _places(request, told["project"])
    if request.method == "POST" and places:
        try:
            made = services.create(
                by=page_actor(request),
                name=request.POST.get("name", "").strip(),
                project=_chosen(request, told["project"]),
                description=request.POST.get("description", "").strip(),
                recipe=forms.read(request.POST),
            )
        except AosError as error:
            return _form(request, told, None, problem=error)
        messages.success(request, f"{made.name} is made.")
        return redirect("sandbox_environment", environment_id=made.pk)
    return _form(request, told, None)


@signed_in
@require_http_methods(["GET", "POST"])
def edit(request: HubRequest, environment_id: UUID) -> HttpResponse:
    found = _found(request, environment_id)
    told = context(request, tab="environments", project=found.project)
    if request.method == "POST":
        try:
            services.change(
                by=page_actor(request),
                environment=found,
                recipe=forms.read(request.POST),
                description=request.POST.get("description", "").strip(),
            )
        except AosError as error:
            return _form(request, told, found, problem=error)
        messages.success(request, "It is saved. Runs accepted from now on get it.")
        return redirect("sandbox_environment", environment_id=found.pk)
    return _form(request, told, found)


@signed_in
@require_POST
def clone(request: HubRequest, environment_id: UUID) -> HttpResponse:
    found = _found(request, environment_id)
    here = context(request, tab="environments", project=found.project)["project"]
    try:
        made = services.clone(
            by=page_actor(request),
            source=found,
            name=request.POST.get("name", "").strip(),
            project=_chosen(request, here),
        )
    except (Conflict, Invalid) as error:
        messages.error(request, str(error), extra_tags="bad")
        return redirect("sandbox_environment", environment_id=found.pk)
    messages.success(request, f"{made.name} is made like {found.name}.")
    return redirect("sandbox_environment", environment_id=made.pk)


@signed_in
@require_POST
def default(request: HubRequest, environment_id: UUID) -> HttpResponse:
    found = _found(request, environment_id)
    services.make_default(by=page_actor(request), environment=found)
    messages.success(request, f"New scripts start with {found.name}.")
    return redirect("sandbox_environment", environment_id=found.pk)


@signed_in
@require_POST
def remove(request: HubRequest, environment_id: UUID) -> HttpResponse:
    found = _found(request, environment_id)
    try:
        services.remove(by=page_actor(request), environment=found)
    except Conflict as error:
        messages.error(request, str(error), extra_tags="bad")
        return redirect("sandbox_environment", environment_id=environment_id)
    messages.success(request, f"{found.name} is deleted. Runs keep what they were given.")
    return redirect("sandbox_environments")


def _visible(user: User) -> Any:
    return Environment.objects.visible_to(user).select_related("project")


def _found(request: HubRequest, environment_id: UUID) -> Environment:
    found: Environment = get_object_or_404(_visible(person(request)), pk=environment_id)
    return found


def _naming(user: User, environment: Environment) -> QuerySet[Agent]:
    """Agents whose current version calls it, or another of its name, by name."""
    naming = Agent.objects.visible_to(user).filter(
        current__spec__sandbox__environment=environment.name
    )
    return naming.order_by("title").defer("current__spec")


def _places(request: HubRequest, project: Project | None) -> list[tuple[str, str]]:
    """Where this person may make environments."""
    found = []
    if project and may_manage(request, project):
        found.append((HERE, f"The project {project.name}"))
    if may_manage(request, None):
        found.append((ALL, "All projects of the organization"))
    return found


def _chosen(request: HubRequest, project: Project | None) -> Project | None:
    return None if request.POST.get("place") == ALL else project


def _form(
    request: HubRequest,
    told: dict[str, Any],
    found: Environment | None,
    *,
    problem: AosError | None = None,
) -> HttpResponse:
    """Show the form. Choosing another profile shows what that one allows."""
    offered = offers.profiles()
    sent = request.POST if request.method == "POST" else request.GET
    project = found.project if found else told["project"]
    places = _places(request, told["project"])
    if "profile" in sent:
        form = forms.again(sent, offered=offered, problem=problem)
    else:
        form = forms.of(found, offered=offered, place=places[0][0] if places else "")
    told |= {
        "environment": found,
        "form": form,
        "places": places,
        "may_manage": may_manage(request, project) if found else bool(places),
        "action": request.path,
        "back": reverse("sandbox_environment", args=[found.pk])
        if found
        else reverse("sandbox_environments"),
    }
    status = problem.status if problem else 200
    return render(request, "hub/sandboxes/environment_form.html", told, status=status)
