"""Schedules: the list, one schedule with its times, and the form that makes and changes them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID
from zoneinfo import available_timezones

from django.contrib import messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.agents.models import Agent
from apps.core import clock
from apps.core.errors import AosError, Invalid
from apps.hub import frame, inputs
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity import policy
from apps.identity.models import User
from apps.identity.rest import page_actor
from apps.projects.models import Project, WorkspaceFile
from apps.projects.services import files as project_files
from apps.runs import cron
from apps.runs.models import Schedule, ScheduleFire
from apps.runs.services import schedules as services
from apps.runs.types import CatchUp, TaskSpec, Timing

_FIRES: Final = 50
_TIMES: Final = 5
_STORED_FILES: Final = 50
# What most people want, to begin with.
_USUAL: Final = {
    "0 * * * *": "every hour",
    "*/15 * * * *": "every 15 minutes",
    "0 7 * * *": "every day at 07:00",
    "0 7 * * MON-FRI": "on working days at 07:00",
    "0 7 * * MON": "on Mondays at 07:00",
    "0 7 1 * *": "on the first of the month at 07:00",
}


@signed_in
@require_GET
def schedule_list(request: HubRequest) -> HttpResponse:
    around = frame.of(request)
    last = ScheduleFire.objects.filter(schedule=OuterRef("pk")).order_by("-id").values("pk")[:1]
    found = _visible(person(request)).filter(project=around.project).order_by("name")
    rows = list(found.annotate(last_fire=Subquery(last)))
    fires = ScheduleFire.objects.select_related("run").in_bulk([row.last_fire for row in rows])
    context = {
        "page": "schedules",
        "frame": around,
        "project": around.project,
        "schedules": [
            {"row": row, "words": cron.in_words(row.cron), "last": fires.get(row.last_fire)}
            for row in rows
        ],
        "may_manage": around.project is not None and _may_manage(request, around.project),
    }
    return render(request, "hub/schedules/list.html", context)


@signed_in
@require_GET
def schedule(request: HubRequest, schedule_id: UUID) -> HttpResponse:
    found = _found(request, schedule_id)
    newest = ScheduleFire.objects.select_related("run").order_by("-id")
    context = {
        "page": "schedules",
        "frame": frame.of(request, project=found.project),
        "schedule": found,
        "words": cron.in_words(found.cron),
        "times": _next_times(found),
        "fires": newest.filter(schedule=found)[:_FIRES],
        "may_manage": _may_manage(request, found.project),
        "run_key": uuid.uuid4().hex,
    }
    return render(request, "hub/schedules/one.html", context)


@signed_in
@require_http_methods(["GET", "POST"])
def schedule_new(request: HubRequest) -> HttpResponse:
    around = frame.of(request)
    if around.project is None:
        return redirect("schedules")
    return _form(request, around.project, None)


@signed_in
@require_http_methods(["GET", "POST"])
def schedule_edit(request: HubRequest, schedule_id: UUID) -> HttpResponse:
    found = _found(request, schedule_id)
    return _form(request, found.project, found)


@signed_in
@require_GET
def schedule_preview(request: HubRequest) -> HttpResponse:
    """What the expression being typed means."""
    expression, zone = request.GET.get("cron", ""), request.GET.get("timezone", "")
    context: dict[str, Any] = {"timezone": zone}
    now = clock.now()
    try:
        cron.check(expression, zone, after=now)
    except Invalid as error:
        context["fault"] = error.errors[0]["rule"]
    else:
        context["words"] = cron.in_words(expression)
        context["times"] = cron.upcoming(expression, zone, after=now, count=_TIMES)
    return render(request, "hub/schedules/preview.html", context)


@signed_in
@require_POST
def schedule_pause(request: HubRequest, schedule_id: UUID) -> HttpResponse:
    return _act(request, schedule_id, services.pause, "The schedule is paused.")


@signed_in
@require_POST
def schedule_resume(request: HubRequest, schedule_id: UUID) -> HttpResponse:
    return _act(request, schedule_id, services.resume, "The schedule goes on. Its runs are yours.")


@signed_in
@require_POST
def schedule_run(request: HubRequest, schedule_id: UUID) -> HttpResponse:
    found = _found(request, schedule_id)
    key = request.POST.get("key", "")[:255] or None
    try:
        run = services.run_now(by=page_actor(request), schedule=found, key=key).run
    except AosError as error:
        messages.error(request, str(error))
        return redirect("schedule", schedule_id=found.pk)
    return redirect("run", public_id=run.public_id)


@signed_in
@require_POST
def schedule_remove(request: HubRequest, schedule_id: UUID) -> HttpResponse:
    found = _found(request, schedule_id)
    services.remove(by=page_actor(request), schedule=found)
    messages.success(request, f"{found.name} is deleted. Its runs stay.")
    return redirect("schedules")


def _visible(user: User) -> QuerySet[Schedule]:
    return Schedule.objects.visible_to(user).select_related("project", "agent", "submits_as")


def _found(request: HubRequest, schedule_id: UUID) -> Schedule:
    return get_object_or_404(_visible(person(request)), pk=schedule_id)


def _may_manage(request: HubRequest, project: Project) -> bool:
    return policy.allows(page_actor(request), "schedule.manage", project_id=project.pk)


def _next_times(found: Schedule) -> list[Any]:
    if found.next_at is None:
        return []
    later = cron.upcoming(found.cron, found.timezone, after=found.next_at, count=_TIMES - 1)
    return [found.next_at, *later]


def _act(
    request: HubRequest, schedule_id: UUID, act: Callable[..., Schedule], done: str
) -> HttpResponse:
    found = _found(request, schedule_id)
    act(by=page_actor(request), schedule=found)
    messages.success(request, done)
    return redirect("schedule", schedule_id=found.pk)


# The form


def _form(request: HubRequest, project: Project, found: Schedule | None) -> HttpResponse:
    """Show the form, or take what was filled in. Choosing another agent shows its own fields."""
    agents = list(Agent.objects.visible_to(person(request)).released().select_related("current"))
    sent = request.POST if request.method == "POST" else request.GET
    slug = sent.get("agent") or (found.agent.slug if found else "")
    agent = next((one for one in agents if one.slug == slug), agents[0] if agents else None)
    if agent is None or not _may_manage(request, project):
        return _show(request, project, found, agent=agent, agents=agents)
    if request.method != "POST":
        same = found is not None and found.agent_id == agent.pk
        values = found.task["input"] if found and same else None
        return _show(request, project, found, agent=agent, agents=agents, values=values)
    try:
        stored = _store(request, project, found, agent)
    except AosError as error:
        return _show(request, project, found, agent=agent, agents=agents, problem=error)
    messages.success(request, f"{stored.name} is saved.")
    return redirect("schedule", schedule_id=stored.pk)


def _store(request: HubRequest, project: Project, found: Schedule | None, agent: Agent) -> Schedule:
    by = page_actor(request)
    name = request.POST.get("name", "").strip()
    if not 1 <= len(name) <= 80:
        raise Invalid([{"field": "name", "rule": "must be 1 to 80 characters long"}])
    timing = _timing(request.POST)
    cron.check(timing.cron, timing.timezone, after=clock.now())
    filled = inputs.read(agent, request.POST, request.FILES)
    for field, upload in filled.uploads.items():
        stored = project_files.put(
            by=by, project=project, name=inputs.file_name(upload), chunks=upload.chunks()
        )
        filled.values[field] = stored.name
    if found is None:
        task = TaskSpec(input=filled.values)
        return services.create(
            by=by, project=project, agent=agent, name=name, timing=timing, task=task
        )
    task = services.task_with(found, input=filled.values)
    return services.change(by=by, schedule=found, agent=agent, name=name, timing=timing, task=task)


def _timing(sent: Mapping[str, Any]) -> Timing:
    chosen = str(sent.get("catch_up", ""))
    return Timing(
        cron=str(sent.get("cron", "")).strip()[:100],
        timezone=str(sent.get("timezone", "")).strip()[:64],
        catch_up=CatchUp(chosen) if chosen in CatchUp.values else CatchUp.SKIP,
    )


def _show(
    request: HubRequest,
    project: Project,
    found: Schedule | None,
    *,
    agent: Agent | None,
    agents: list[Agent],
    values: Mapping[str, Any] | None = None,
    problem: AosError | None = None,
) -> HttpResponse:
    sent = request.POST if request.method == "POST" else request.GET
    timing = _timing(sent) if "cron" in sent else _timing_to_begin_with(request, found)
    context: dict[str, Any] = {
        "page": "schedules",
        "frame": frame.of(request, project=project),
        "project": project,
        "schedule": found,
        "agents": agents,
        "name": sent.get("name", found.name if found else ""),
        "timing": timing,
        "usual": _USUAL,
        "zones": sorted(available_timezones()),
        "catch_ups": CatchUp.choices,
        "may_manage": _may_manage(request, project),
        "action": request.path,
        "back": reverse("schedule", args=[found.pk]) if found else reverse("schedules"),
    }
    if agent is not None:
        files = WorkspaceFile.objects.filter(project=project).order_by("-updated_at")
        invalid = problem if isinstance(problem, Invalid) else None
        form = inputs.compose(
            agent,
            stored=list(files.values_list("name", flat=True)[:_STORED_FILES]),
            values=_typed(agent, request) if problem else values,
            problem=invalid,
        )
        if problem is not None and invalid is None:
            form.errors.append(str(problem))
        context["composer"] = form
    return render(
        request, "hub/schedules/form.html", context, status=problem.status if problem else 200
    )


def _typed(agent: Agent, request: HubRequest) -> Mapping[str, Any]:
    """What was filled in, as far as it can be read, so that nobody types twice."""
    try:
        return inputs.read(agent, request.POST, request.FILES).values
    except Invalid:
        return {}


def _timing_to_begin_with(request: HubRequest, found: Schedule | None) -> Timing:
    """As it is; for a new one, the time zone this person used last."""
    if found is not None:
        return found.timing
    mine = Schedule.objects.visible_to(person(request)).filter(submits_as=person(request))
    last = mine.order_by("-id").values_list("timezone", flat=True).first()
    return Timing(cron="0 7 * * MON-FRI", timezone=last or "UTC")
