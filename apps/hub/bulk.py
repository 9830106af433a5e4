"""Acts on many runs: counted before somebody confirms them, and followed while they are at work."""

from __future__ import annotations

import uuid
from typing import Any, Final
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.db.models import Q, QuerySet
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from apps.agents.models import Agent
from apps.hub import frame
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity import policy
from apps.identity.models import User
from apps.identity.rest import page_actor
from apps.projects.models import Project
from apps.runs.errors import BulkIsOver, RunError
from apps.runs.models import BulkAct
from apps.runs.services import bulk as services
from apps.runs.types import BulkState, BulkVerb, RunFilter, RunState

_SAMPLE: Final = 5
_LISTED: Final = 50
# What a form proposes to try first.
_FEW: Final = 5


@signed_in
@require_GET
def bulk_list(request: HubRequest) -> HttpResponse:
    around = frame.of(request)
    # Those about all projects are about this one too.
    acts = _visible(person(request)).filter(Q(project=around.project) | Q(project=None))
    context = {
        "page": "runs",
        "frame": around,
        "project": around.project,
        "acts": acts.order_by("-id")[:_LISTED],
    }
    return render(request, "hub/bulk/list.html", context)


@signed_in
@require_GET
def bulk_new(request: HubRequest) -> HttpResponse:
    """What an act would touch, and the question whether it shall."""
    policy.require_entry(page_actor(request), "run.bulk")
    around = frame.of(request)
    if around.project is None:
        return redirect("runs")
    verb, chosen = _asked(request.GET)
    wanted = _filter(person(request), around.project, chosen)
    found = services.preview(by=page_actor(request), verb=verb, wanted=wanted)
    context = {
        "page": "runs",
        "frame": around,
        "project": around.project,
        "verb": verb,
        "chosen": chosen,
        "count": found["count"],
        "states": sorted(found["states"].items()),
        "upto": found["upto"],
        "sample": services.meant(page_actor(request), verb, wanted)
        .select_related("agent_version__agent", "submitted_by", "lease")
        .order_by("pk")[:_SAMPLE],
        "few": min(_FEW, found["count"]),
        "key": uuid.uuid4().hex,
    }
    return render(request, "hub/bulk/new.html", context)


@signed_in
@require_POST
def bulk_begin(request: HubRequest) -> HttpResponse:
    policy.require_entry(page_actor(request), "run.bulk")
    verb, chosen = _asked(request.POST)
    project = get_object_or_404(
        Project.objects.visible_to(person(request)), slug=request.POST.get("project", "")
    )
    try:
        act, _ = services.begin(
            by=page_actor(request),
            verb=verb,
            wanted=_filter(person(request), project, chosen),
            upto=_upto(request),
            canary=_canary(request),
            key=request.POST.get("key", "")[:255] or None,
        )
    except RunError as error:
        messages.error(request, str(error), extra_tags="bad")
        return redirect("runs")
    return redirect("bulk", act_id=act.pk)


@signed_in
@require_GET
def bulk(request: HubRequest, act_id: UUID) -> HttpResponse:
    """The page, or the part of it that changes."""
    act = _found(request, act_id)
    context = _shown(request, act)
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "hub/bulk/live.html", context)
    context |= {"page": "runs", "frame": frame.of(request, project=act.project)}
    return render(request, "hub/bulk/one.html", context)


@signed_in
@require_POST
def bulk_proceed(request: HubRequest, act_id: UUID) -> HttpResponse:
    return _step(request, act_id, services.proceed)


@signed_in
@require_POST
def bulk_stop(request: HubRequest, act_id: UUID) -> HttpResponse:
    return _step(request, act_id, services.stop)


def _step(request: HubRequest, act_id: UUID, step: Any) -> HttpResponse:
    act = _found(request, act_id)
    try:
        step(by=page_actor(request), act=act)
    except BulkIsOver as error:
        messages.error(request, str(error), extra_tags="bad")
    return redirect("bulk", act_id=act.pk)


def _visible(user: User) -> QuerySet[BulkAct]:
    return BulkAct.objects.visible_to(user).select_related("project", "asked_by")


def _found(request: HubRequest, act_id: UUID) -> BulkAct:
    return get_object_or_404(_visible(person(request)), pk=act_id)


def _shown(request: HubRequest, act: BulkAct) -> dict[str, Any]:
    agent_id = act.wanted.get("agent_id")
    agents = Agent.objects.visible_to(person(request)).filter(pk=agent_id) if agent_id else None
    return {
        "act": act,
        "verb": BulkVerb(act.verb),
        "agent": agents.first() if agents else None,
        "tried": act.state == BulkState.TRIED,
        "rest": max(0, act.matched - act.treated),
        "may_bulk": policy.allows(page_actor(request), "run.bulk", project_id=act.project_id),
    }


def _asked(given: QueryDict) -> tuple[BulkVerb, dict[str, str]]:
    if (verb := given.get("act", "")) not in BulkVerb.values:
        raise BadRequest("act is not one of those that there are")
    chosen = {name: given.get(name, "") for name in ("state", "agent", "error")}
    if chosen["state"] and chosen["state"] not in RunState.values:
        raise BadRequest("state is not one of a run's states")
    return BulkVerb(verb), chosen


def _filter(user: User, project: Project, chosen: dict[str, str]) -> RunFilter:
    agent = None
    if slug := chosen["agent"]:
        agent = get_object_or_404(Agent.objects.visible_to(user), slug=slug)
    return RunFilter(
        project_id=project.pk,
        agent_id=agent.pk if agent else None,
        state=chosen["state"] or None,
        error=chosen["error"] or None,
    )


def _upto(request: HubRequest) -> UUID | None:
    try:
        return UUID(request.POST.get("upto", ""))
    except ValueError as error:
        raise BadRequest("upto is not a run's id") from error


def _canary(request: HubRequest) -> int | None:
    if request.POST.get("pace") != "few":
        return None
    text = request.POST.get("canary", "")
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise BadRequest("canary is not a number of runs")
    return int(text)
