"""The page of dead letters: what ended badly and why, and what shall come of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.hub import advice, frame
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity import policy
from apps.identity.rest import page_actor
from apps.runs.errors import RunError
from apps.runs.models import DeadLetter, Run
from apps.runs.services import control
from apps.runs.services import letters as services

_PAGE: Final = 30


@signed_in
@require_GET
def dead_letters(request: HubRequest) -> HttpResponse:
    around = frame.of(request)
    project, code = around.project, request.GET.get("error", "")
    open_ones = DeadLetter.objects.visible_to(person(request)).open().filter(project=project)
    if code:
        open_ones = open_ones.filter(code=code)
    if before := request.GET.get("before"):
        open_ones = open_ones.filter(run__lt=_place(before))
    found = open_ones.select_related("run__agent_version__agent").defer("run__spec", "run__trace")
    page = list(found.order_by("-run_id")[: _PAGE + 1])
    may_bulk = project is not None and policy.allows(
        page_actor(request), "run.bulk", project_id=project.pk
    )
    context = {
        "page": "dead_letters",
        "frame": around,
        "project": project,
        "code": code,
        "groups": _groups(services.by_code(project)) if project else [],
        "letters": [_shown(letter) for letter in page[:_PAGE]],
        "more": _more(page, code),
        "may_settle": may_bulk,
    }
    return render(request, "hub/letters.html", context)


def _place(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise BadRequest("before is not the number of a letter")
    return int(text)


def _groups(counts: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"code": code, "count": count, "title": _title(code)} for code, count in counts]


def _title(code: str) -> str:
    explained = advice.explain({"code": code})
    return explained.title if explained else code


def _shown(letter: DeadLetter) -> dict[str, Any]:
    return {"run": letter.run, "why": advice.explain(letter.run.error)}


def _more(page: Sequence[DeadLetter], code: str) -> str:
    if len(page) <= _PAGE:
        return ""
    query = {"before": page[_PAGE - 1].run_id} | ({"error": code} if code else {})
    return f"{reverse('dead_letters')}?{urlencode(query)}"


@signed_in
@require_POST
def requeue(request: HubRequest, public_id: UUID) -> HttpResponse:
    run = _run(request, public_id)
    try:
        again = control.requeue(by=page_actor(request), run=run).run
    except RunError as error:
        messages.error(request, str(error), extra_tags="bad")
        return redirect("dead_letters")
    messages.success(request, f"{again.name} is queued again.")
    return redirect("dead_letters")


@signed_in
@require_POST
def dismiss(request: HubRequest, public_id: UUID) -> HttpResponse:
    run = _run(request, public_id)
    try:
        services.dismiss(by=page_actor(request), run=run)
    except RunError as error:
        messages.error(request, str(error), extra_tags="bad")
    else:
        messages.success(request, f"{run.name} is dismissed.")
    return redirect("dead_letters")


def _run(request: HubRequest, public_id: UUID) -> Run:
    runs = Run.objects.visible_to(person(request)).select_related("project", "agent_version__agent")
    return get_object_or_404(runs, public_id=public_id)
