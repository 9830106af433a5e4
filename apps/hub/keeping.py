"""The queue page's part about ended runs: how long they are kept, and the form that decides it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from apps.core import clock
from apps.core.errors import Invalid
from apps.hub import frame
from apps.hub.visiting import HubRequest, may, number, signed_in
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.rest import page_actor
from apps.runs.models import Run
from apps.runs.retention_models import LONGEST_DAYS
from apps.runs.services import removal

# So many are counted before somebody agrees; of more it is said that they are more.
_COUNTED: Final = 1000


def context(by: Actor) -> dict[str, Any]:
    """How long ended runs are kept, and whether this person may change it."""
    return {
        "kept": removal.kept(by.user.organization_id),
        "may_keep": policy.allows(by, "retention.manage"),
    }


@signed_in
@may("retention.manage")
@require_POST
def retention_set(request: HubRequest) -> HttpResponse:
    """Keep ended runs for so many days; an empty number leaves it to the platform.

    A shorter time removes what cannot be brought back, so it is asked for twice.
    """
    by = page_actor(request)
    try:
        days = number(request, "days")
        if "sure" not in request.POST and (then := _shorter(by, days)):
            return _ask(request, by, given=days, then=then)
        kept = (
            removal.keep_as_platform(by=by) if days is None else removal.keep_for(by=by, days=days)
        )
    except Invalid as error:
        messages.error(request, str(error))
    else:
        told = f"for {kept.run_days} days" if kept.run_days else "for ever"
        messages.success(request, f"Ended runs are kept {told}.")
    return redirect("queue")


def _shorter(by: Actor, days: int | None) -> int:
    """For how many days runs are kept then, if that is less than now; otherwise 0."""
    now = removal.kept(by.user.organization_id)
    then = now.platform_days if days is None else days
    is_shorter = 0 < then <= LONGEST_DAYS and (not now.run_days or then < now.run_days)
    return then if is_shorter else 0


def _ask(request: HubRequest, by: Actor, *, given: int | None, then: int) -> HttpResponse:
    past = clock.now() - timedelta(days=then)
    old = Run.objects.filter(organization_id=by.user.organization_id, finished_at__lt=past)
    told = {
        "page": "queue",
        "frame": frame.of(request),
        "given": "" if given is None else given,
        "then": then,
        "count": old.order_by()[: _COUNTED + 1].count(),
        "counted": _COUNTED,
    }
    return render(request, "hub/queue/keeping_ask.html", told)
