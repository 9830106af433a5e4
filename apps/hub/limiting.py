"""The queue page's part about limits: how they stand, and the forms that set them and pause agents."""

from __future__ import annotations

import re
from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from apps.agents.models import Agent
from apps.core.errors import Invalid
from apps.core.rest.references import find
from apps.hub.visiting import HubRequest, may, number, person, signed_in
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.rest import page_actor
from apps.projects.models import Project
from apps.runs.services import limits
from apps.runs.services.gates import Rate
from apps.runs.services.limits import About
from apps.runs.types import (
    CONCURRENCY_KEY,
    LONGEST_CONCURRENCY_KEY,
    LimitScope,
    Priority,
)

_CLASSES: Final = {priority.label: priority for priority in Priority}


def context(by: Actor) -> dict[str, Any]:
    """What the page shows of limits; what its forms offer only to who may use them."""
    may_limit = policy.allows(by, "limit.manage")
    may_pause = policy.allows(by, "agent.pause")
    found: dict[str, Any] = {
        "limits": limits.standing(by),
        "may_limit": may_limit,
        "may_pause": may_pause,
    }
    if may_limit:
        found["projects"] = Project.objects.visible_to(by.user)
    if may_limit or may_pause:
        found["agents"] = Agent.objects.visible_to(by.user)
    return found


@signed_in
@may("limit.manage")
@require_POST
def limit_set(request: HubRequest) -> HttpResponse:
    try:
        about = _about(request)
        limits.put(
            by=page_actor(request),
            about=about,
            cap=number(request, "cap"),
            rate=_rate(request),
            queue_limit=number(request, "most"),
        )
    except Invalid as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"The {about.words} is limited.")
    return redirect("queue")


@signed_in
@may("limit.manage")
@require_POST
def limit_remove(request: HubRequest) -> HttpResponse:
    about = _about(request)
    limits.remove(by=page_actor(request), about=about)
    messages.success(request, f"The {about.words} has no limit of its own any more.")
    return redirect("queue")


@signed_in
@may("limit.manage")
@require_POST
def queue_cap(request: HubRequest) -> HttpResponse:
    """Cap one queue in one priority class; an empty number takes the cap away."""
    if (label := request.POST.get("priority", "")) not in _CLASSES:
        raise BadRequest("priority is not one of the classes")
    name = request.POST.get("queue", "")
    try:
        cap = number(request, "cap")
        limits.cap_queue(by=page_actor(request), queue=name, priority=_CLASSES[label], cap=cap)
    except Invalid as error:
        messages.error(request, str(error))
    else:
        told = f"runs {cap} at once" if cap else "has no cap"
        messages.success(request, f"{name}/{label} {told}.")
    return redirect("queue")


@signed_in
@may("agent.pause")
@require_POST
def agent_hold(request: HubRequest) -> HttpResponse:
    """Pause or resume an agent."""
    agents = Agent.objects.visible_to(person(request))
    agent = find(agents, request.POST.get("agent", ""), what="agent")
    paused = request.POST.get("paused") == "true"
    reason = request.POST.get("reason", "")
    limits.set_agent_paused(by=page_actor(request), agent=agent, paused=paused, reason=reason)
    messages.success(request, f"{agent.title} {'is paused' if paused else 'goes on'}.")
    return redirect("queue")


def _about(request: HubRequest) -> About:
    """What the form names: ``organization``, ``project:demo``, ``agent:hello`` or ``key`` with its name."""
    user = person(request)
    scope, _, ref = request.POST.get("about", "").partition(":")
    if scope == LimitScope.ORGANIZATION:
        return limits.of_organization(user.organization_id)
    if scope == LimitScope.PROJECT:
        return limits.of_project(find(Project.objects.visible_to(user), ref, what="project"))
    if scope == LimitScope.AGENT:
        return limits.of_agent(find(Agent.objects.visible_to(user), ref, what="agent"))
    if scope != LimitScope.KEY:
        raise BadRequest("about names nothing that can be limited")
    key = ref or request.POST.get("key", "")
    if not re.match(CONCURRENCY_KEY, key) or len(key) > LONGEST_CONCURRENCY_KEY:
        rule = "must be letters, digits and . _ : / @ -, and start with a letter or digit"
        raise Invalid([{"field": "key", "rule": rule}])
    return limits.of_key(user.organization_id, key)


def _rate(request: HubRequest) -> Rate | None:
    count, seconds = number(request, "count"), number(request, "seconds")
    if count is None and seconds is None:
        return None
    if count is None or seconds is None:
        raise Invalid([{"field": "rate", "rule": "needs a number of starts and of seconds"}])
    return Rate(count=count, seconds=seconds)
