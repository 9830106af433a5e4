"""The queue page: what waits, what moves, who works, and the buttons that hold a queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from apps.hub import frame, keeping, limiting
from apps.hub.visiting import HubRequest, may, signed_in
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.rest import page_actor
from apps.runs.fleet_models import WorkerNode
from apps.runs.services import figures, fleet, queues
from apps.runs.services.figures import Minute
from apps.runs.types import Priority

_MINUTES: Final = 60
# The chart's drawing space; a bar takes nine tenths of its minute.
_WIDTH: Final = 600
_HEIGHT: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One minute of the chart: the succeeded below, the others on top."""

    x: float
    width: float
    succeeded_y: float
    succeeded_height: float
    others_y: float
    others_height: float


@signed_in
@may("queue.watch")
@require_GET
def queue(request: HubRequest) -> HttpResponse:
    """The page, or the part of it that changes."""
    by = page_actor(request)
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "hub/queue/live.html", _figures(by))
    context = {"page": "queue", "frame": frame.of(request)} | _figures(by)
    return render(request, "hub/queue.html", context)


@signed_in
@may("queue.manage")
@require_POST
def queue_hold(request: HubRequest) -> HttpResponse:
    """Pause or resume one queue in one priority class."""
    names = {priority.label: priority for priority in Priority}
    if (label := request.POST.get("priority", "")) not in names:
        raise BadRequest("priority is not one of the classes")
    paused = request.POST.get("paused") == "true"
    name = request.POST.get("queue", "")
    queues.set_paused(by=page_actor(request), queue=name, priority=names[label], paused=paused)
    messages.success(request, f"{name}/{label} {'is paused' if paused else 'goes on'}.")
    return redirect("queue")


def _figures(by: Actor) -> dict[str, Any]:
    organization_id = by.user.organization_id
    lanes = figures.lanes(organization_id)
    minutes = figures.ended_by_minute(organization_id, minutes=_MINUTES)
    return {
        "platform": figures.platform(),
        "lanes": lanes,
        "waiting": sum(lane.ready + lane.parked for lane in lanes),
        "parked": sum(lane.parked for lane in lanes),
        "moving": sum(lane.dispatched + lane.running for lane in lanes),
        "oldest_s": max((lane.oldest_s for lane in lanes if lane.oldest_s), default=None),
        "workers": _workers(),
        "bars": _bars(minutes),
        "ended": sum(minute.succeeded + minute.others for minute in minutes),
        "failed": sum(minute.others for minute in minutes),
        "chart": {"width": _WIDTH, "height": _HEIGHT},
        "may_manage": policy.allows(by, "queue.manage"),
        **limiting.context(by),
        **keeping.context(by),
    }


def _workers() -> list[dict[str, Any]]:
    found = WorkerNode.objects.filter(gone_at=None).order_by("name")
    return [
        {
            "node": node,
            "alive": fleet.is_alive(node),
            "labels": [f"{name}={word}" for name, word in sorted(node.labels.items())],
        }
        for node in found
    ]


def _bars(minutes: Sequence[Minute]) -> list[Bar]:
    most = max((minute.succeeded + minute.others for minute in minutes), default=0) or 1
    step, scale = _WIDTH / len(minutes), _HEIGHT / most
    return [
        Bar(
            x=round(index * step, 1),
            width=round(step * 0.9, 1),
            succeeded_height=round(minute.succeeded * scale, 1),
            succeeded_y=round(_HEIGHT - minute.succeeded * scale, 1),
            others_height=round(minute.others * scale, 1),
            others_y=round(_HEIGHT - (minute.succeeded + minute.others) * scale, 1),
        )
        for index, minute in enumerate(minutes)
    ]
