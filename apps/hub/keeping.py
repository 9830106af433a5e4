"""The queue page's part about ended runs: how long they are kept, and the form that decides it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from apps.core.errors import Invalid
from apps.hub.visiting import HubRequest, may, number, signed_in
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.rest import page_actor
from apps.runs.services import removal


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
    """Keep ended runs for so many days; an empty number leaves it to the platform."""
    by = page_actor(request)
    try:
        days = number(request, "days")
        kept = (
            removal.keep_as_platform(by=by) if days is None else removal.keep_for(by=by, days=days)
        )
    except Invalid as error:
        messages.error(request, str(error))
    else:
        told = f"for {kept.run_days} days" if kept.run_days else "for ever"
        messages.success(request, f"Ended runs are kept {told}.")
    return redirect("queue")
