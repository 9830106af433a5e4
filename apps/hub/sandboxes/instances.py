"""Which sandboxes there are: those of runs one may see, and those that workers hold for no run yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.hub import subjects
from apps.hub.sandboxes.desk import context
from apps.hub.subjects import Subject
from apps.hub.templatetags.aos import Face
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity import policy
from apps.identity.models import User
from apps.identity.rest import page_actor
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from apps.sandboxes.services.tracking import Group
from apps.sandboxes.types import SandboxState

_LISTED: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How a state looks, and what it means."""

    face: Face
    meaning: str


STATES: Final[Mapping[str, State]] = {
    SandboxState.CREATING: State(
        face=Face(icon="loader-2", word="Creating", tone="info", turns=True),
        meaning="A worker is making it.",
    ),
    SandboxState.WARM: State(
        face=Face(icon="circle-dashed", word="Warm"),
        meaning="It waits, ready for the next run. It is nobody's yet.",
    ),
    SandboxState.CLAIMED: State(
        face=Face(icon="box", word="Claimed", tone="ok"),
        meaning="One attempt of a run has it, and nobody after that.",
    ),
    SandboxState.SERVING: State(
        face=Face(icon="affiliate", word="Serving", tone="ok"),
        meaning="It runs a server of tools for its worker.",
    ),
    SandboxState.PAUSED: State(
        face=Face(icon="player-pause", word="Paused", tone="warn"),
        meaning="It stands still: it holds its memory and takes no processor time.",
    ),
    SandboxState.SNAPSHOTTED: State(
        face=Face(icon="folders", word="Snapshotted", tone="info"),
        meaning="It was removed. Its files are kept for the next attempt of its run.",
    ),
    SandboxState.DESTROYING: State(
        face=Face(icon="trash", word="Destroying"), meaning="It is being removed."
    ),
    SandboxState.FAILED: State(
        face=Face(icon="circle-x", word="Failed", tone="bad"),
        meaning="It could not be made, or was lost. It is shown for a day.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A sandbox, with the names of its run and its project."""

    sandbox: Sandbox
    face: Face
    run: Subject | None
    project: Subject | None


@signed_in
@require_GET
def index(request: HubRequest) -> HttpResponse:
    """The page, or the part of it that changes."""
    user = person(request)
    state = request.GET.get("state", "")
    found = Sandbox.objects.visible_to(user).standing()
    if state in STATES:
        found = found.filter(state=state)
    newest = list(found.order_by("-id")[: _LISTED + 1])
    may_watch = policy.allows(page_actor(request), "queue.watch")
    told = {
        "rows": _rows(newest[:_LISTED], to=user),
        "listed": _LISTED,
        "more": len(newest) > _LISTED,
        "states": STATES,
        "chosen": state if state in STATES else "",
        "may_watch": may_watch,
        "nobodys": _told(tracking.nobodys()) if may_watch else [],
    }
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "hub/sandboxes/instances_live.html", told)
    around = context(request, tab="instances")
    return render(request, "hub/sandboxes/instances.html", around | told)


def _rows(found: Iterable[Sandbox], *, to: User) -> list[Row]:
    keys = {("run", str(row.run_id)) for row in found} | {
        ("project", str(row.project_id)) for row in found
    }
    names = subjects.find(keys, to=to)
    return [
        Row(
            sandbox=row,
            face=STATES[row.state].face,
            run=subjects.named("run", str(row.run_id), names) if row.run_id else None,
            project=names.get(("project", str(row.project_id))),
        )
        for row in found
    ]


def _told(groups: Iterable[Group]) -> list[tuple[Face, Group]]:
    return [(STATES[group.state].face, group) for group in groups]
