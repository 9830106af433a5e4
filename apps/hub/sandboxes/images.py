"""Images and profiles: what the workers' hosts have, as they told it last."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.hub.sandboxes.desk import context
from apps.hub.visiting import HubRequest, signed_in
from apps.sandboxes.services import offers


@signed_in
@require_GET
def index(request: HubRequest) -> HttpResponse:
    told = {"images": offers.images(), "profiles": list(offers.profiles().values())}
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "hub/sandboxes/images_live.html", told)
    told |= context(request, tab="images")
    return render(request, "hub/sandboxes/images.html", told)
