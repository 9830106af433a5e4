"""Scripts: the list, the editor, and the run that tries what is written."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Count, OuterRef, Q, Subquery
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.agents.models import Agent, AgentVersion
from apps.agents.services import registry, removal, scripts
from apps.agents.types import AgentKind, VersionState
from apps.core.errors import AosError, Conflict, Invalid, NotAllowed
from apps.core.rest.parsers import loads, require_storable
from apps.hub import advice, cards, files, inputs, log
from apps.hub.sandboxes import script_forms
from apps.hub.sandboxes.desk import context
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity import policy
from apps.identity.models import User
from apps.identity.rest import page_actor
from apps.identity.services import bindings
from apps.identity.types import Scope
from apps.projects.models import Project, WorkspaceFile
from apps.projects.services import files as project_files
from apps.runs import cron
from apps.runs.errors import AgentInUse
from apps.runs.models import Run, Schedule
from apps.runs.services import agents, submission
from apps.runs.types import TaskSpec
from apps.sandboxes.models import Environment
from apps.sandboxes.services import environments

_STORED_FILES: Final = 50


@signed_in
@require_GET
def index(request: HubRequest) -> HttpResponse:
    told = context(request, tab="scripts")
    user, project = person(request), told["project"]
    last = Run.objects.visible_to(user).filter(agent_version__agent=OuterRef("pk"), project=project)
    newest = AgentVersion.objects.filter(agent=OuterRef("pk")).order_by("-number")
    found = list(
        _visible(user)
        .select_related("current")
        .defer("current__spec")
        .annotate(
            last_run=Subquery(last.order_by("-id").values("pk")[:1]),
            newest=Subquery(newest.values("number")[:1]),
            environment=Subquery(newest.values("spec__sandbox__environment")[:1]),
            schedule_count=Count("schedules", filter=Q(schedules__project=project)),
        )
    )
    runs = Run.objects.defer("spec").in_bulk([script.last_run for script in found])
    told["scripts"] = [{"agent": script, "run": runs.get(script.last_run)} for script in found]
    told["may_make"] = policy.allows(page_actor(request), "agent.manage")
    return render(request, "hub/sandboxes/scripts.html", told)


@signed_in
@require_http_methods(["GET", "POST"])
def new(request: HubRequest) -> HttpResponse:
    told = context(request, tab="scripts")
    if request.method == "POST":
        try:
            made = scripts.create(
                by=page_actor(request),
                **script_forms.headings(request.POST, is_new=True),
                spec=script_forms.read(request.POST, {}),
            )
        except NotAllowed:
            raise
        except AosError as error:
            editor = script_forms.again(request.POST, seen=0, problem=error)
            return _show(request, told, None, editor=editor, status=error.status)
        messages.success(
            request, f"{made.agent.title} is saved as a draft. Try it, then release it."
        )
        return redirect("sandbox_script", agent_id=made.agent_id)
    usual = environments.default(told["project"]) if told["project"] else None
    editor = script_forms.of(
        None, script_forms.STARTER, seen=0, environment=usual.name if usual else ""
    )
    return _show(request, told, None, editor=editor)


@signed_in
@require_http_methods(["GET", "POST"])
def one(request: HubRequest, agent_id: UUID) -> HttpResponse:
    """The editor. It saves what is written, and tries it when that button was pressed."""
    agent = _found(request, agent_id)
    told = context(request, tab="scripts")
    latest = scripts.newest(agent)
    if request.method != "POST":
        return _show(request, told, agent, editor=_opened(agent, latest), latest=latest)
    saved = latest
    try:
        saved = scripts.save(
            by=page_actor(request),
            agent=agent,
            seen=_seen(request),
            **script_forms.headings(request.POST, is_new=False),
            spec=script_forms.read(request.POST, latest.spec if latest else {}),
        )
    except NotAllowed:
        raise
    except AosError as error:
        # Saving again is an answer to a conflict, so the newest counts as seen from now on.
        seen = latest.number if latest and isinstance(error, Conflict) else _seen(request)
        editor = script_forms.again(request.POST, seen=seen, problem=error)
        return _show(request, told, agent, editor=editor, latest=latest, status=error.status)
    if "try" in request.GET and told["project"]:
        return _try(request, told, saved)
    if latest is None or saved.number != latest.number:
        messages.success(request, f"Saved as version {saved.number}. It is a draft until released.")
    else:
        messages.success(request, "Saved. The files are as they were.")
    return redirect("sandbox_script", agent_id=agent.pk)


@signed_in
@require_POST
def release(request: HubRequest, agent_id: UUID) -> HttpResponse:
    agent = _found(request, agent_id)
    latest = scripts.newest(agent)
    if latest is None:
        messages.error(request, "There is no version to release. Save one first.", extra_tags="bad")
        return redirect("sandbox_script", agent_id=agent.pk)
    registry.release(by=page_actor(request), version=latest)
    messages.success(request, f"Version {latest.number} is released: new runs use it.")
    return redirect("sandbox_script", agent_id=agent.pk)


@signed_in
@require_POST
def remove(request: HubRequest, agent_id: UUID) -> HttpResponse:
    agent = _found(request, agent_id)
    try:
        removal.remove(by=page_actor(request), agent=agent)
    except AgentInUse as error:
        messages.error(request, str(error), extra_tags="bad")
        return redirect("sandbox_script", agent_id=agent.pk)
    messages.success(request, f"{agent.title} is deleted. Its runs stay.")
    return redirect("sandbox_scripts")


@signed_in
@require_GET
def outcome(request: HubRequest, public_id: UUID) -> HttpResponse:
    """What has come of a run so far, in the parts of the page that tries a script."""
    run = get_object_or_404(_runs(person(request)), public_id=public_id)
    if not request.htmx:
        return redirect("run", public_id=run.public_id)
    return render(request, "hub/sandboxes/outcome.html", _outcome(run))


def _visible(user: User) -> Any:
    return Agent.objects.visible_to(user).filter(kind=AgentKind.SCRIPT)


def _found(request: HubRequest, agent_id: UUID) -> Agent:
    if not policy.may_enter(page_actor(request), "agent.read"):
        raise Http404
    rows = _visible(person(request)).select_related("current")
    found: Agent = get_object_or_404(rows, pk=agent_id)
    return found


def _runs(user: User) -> Any:
    return Run.objects.visible_to(user).select_related("agent_version", "project", "lease")


def _opened(agent: Agent, latest: AgentVersion | None) -> script_forms.Editor:
    spec = latest.spec if latest else script_forms.STARTER
    return script_forms.of(agent, spec, seen=latest.number if latest else 0)


def _seen(request: HubRequest) -> int:
    text = request.POST.get("seen", "")
    return int(text) if text.isdecimal() and len(text) <= 9 else 0


# --- trying it ------------------------------------------------------------------------------------


def _try(request: HubRequest, told: dict[str, Any], version: AgentVersion) -> HttpResponse:
    """Submit a run of this version, as any run is; the page then follows its log."""
    by, project, agent = page_actor(request), told["project"], version.agent
    typed: dict[str, Any] = {}
    try:
        typed = _input(request, project, version)
        run = submission.submit_version(
            by=by,
            project=project,
            version=version,
            task=TaskSpec(input=typed),
            key=request.POST.get("key", "")[:255] or None,
        ).run
    except NotAllowed:
        raise
    except AosError as error:
        editor = _opened(agent, version)
        return _show(
            request,
            told,
            agent,
            editor=editor,
            latest=version,
            status=error.status,
            trial=_trial(project, version, typed=typed, problem=error, request=request),
        )
    here = reverse("sandbox_script", args=[agent.pk])
    return redirect(f"{here}?{urlencode({'run': str(run.public_id)})}#trial-log")


def _input(request: HubRequest, project: Project, version: AgentVersion) -> dict[str, Any]:
    """The input that was filled in. Raises ``Invalid``."""
    if not _fields(version):
        return _json(request.POST.get("input", ""))
    filled = inputs.read(_as_if_current(version), request.POST, request.FILES)
    for name, upload in filled.uploads.items():
        filled.values[name] = _stored(request, project, upload)
    return filled.values


def _stored(request: HubRequest, project: Project, upload: UploadedFile[bytes]) -> str:
    file = project_files.put(
        by=page_actor(request),
        project=project,
        name=inputs.file_name(upload),
        chunks=upload.chunks(),
    )
    return file.name


def _json(text: str) -> dict[str, Any]:
    try:
        value = loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise Invalid([{"field": "input", "rule": f"The input is not JSON: {error}."}]) from error
    if not isinstance(value, dict):
        raise Invalid([{"field": "input", "rule": "The input must be a JSON object."}])
    require_storable(value, "input")
    return value


def _fields(version: AgentVersion) -> bool:
    return bool((version.spec.get("input_schema") or {}).get("properties"))


def _as_if_current(version: AgentVersion) -> Agent:
    """The agent as it would be with this version released: its form asks for this version's input."""
    agent = copy.copy(version.agent)
    agent.current = version
    return agent


def _trial(
    project: Project,
    version: AgentVersion,
    *,
    request: HubRequest,
    typed: Mapping[str, Any] | None = None,
    problem: AosError | None = None,
) -> dict[str, Any]:
    """The form that asks for the input of a run that tries this version."""
    stored = WorkspaceFile.objects.filter(project=project).order_by("-updated_at")
    invalid = problem if isinstance(problem, Invalid) else None
    form = inputs.compose(
        _as_if_current(version),
        stored=list(stored.values_list("name", flat=True)[:_STORED_FILES]),
        values=typed or None,
        problem=invalid,
    )
    if problem is not None and invalid is None:
        form.errors.append(str(problem))
    return {
        "composer": form,
        "plain": not _fields(version),
        "input": request.POST.get("input") or json.dumps(typed or {}, ensure_ascii=False),
        "key": uuid.uuid4().hex,
    }


def _outcome(run: Run) -> dict[str, Any]:
    result = run.result or {}
    return {
        "run": run,
        "failure": advice.explain(run.error),
        "result": {
            "summary": result.get("summary", ""),
            "facts": cards.pairs(result.get("facts")),
        },
        "files": [files.of(run.public_id, artifact) for artifact in run.artifacts.all()],
    }


# --- the page -------------------------------------------------------------------------------------


def _show(
    request: HubRequest,
    told: dict[str, Any],
    agent: Agent | None,
    *,
    editor: script_forms.Editor,
    latest: AgentVersion | None = None,
    trial: dict[str, Any] | None = None,
    status: int = 200,
) -> HttpResponse:
    by, project, user = page_actor(request), told["project"], person(request)
    usable = Environment.objects.visible_to(user)
    usable = usable.usable_in(project) if project else usable.filter(project=None)
    told |= {
        "agent": agent,
        "editor": editor,
        "latest": latest,
        "is_draft": latest is not None and latest.state == VersionState.DRAFT,
        "own_limits": bool(latest and latest.spec.get("sandbox")) and not editor.environment,
        "environments": sorted({*usable.values_list("name", flat=True), editor.environment} - {""}),
        "may_manage": policy.allows(by, "agent.manage", agent_id=agent.pk if agent else None),
        "action": request.path,
    }
    if agent is not None and told["may_manage"]:
        told |= {
            "open_runs": agents.open_runs(agent),
            "schedule_count": Schedule.objects.filter(agent=agent).count(),
            "role_count": bindings.over(agent.organization_id, Scope.AGENT, agent.pk).count(),
        }
    if agent is not None and latest is not None and project is not None:
        told |= _followed(request, agent)
        typed = told["run"].spec["input"] if "run" in told else None
        told |= {
            "schedules": _schedules(user, agent, project),
            "may_try": told["may_manage"] and _may_submit(request, agent, project),
            "trial": trial or _trial(project, latest, request=request, typed=typed),
        }
    return render(request, "hub/sandboxes/script.html", told, status=status)


def _may_submit(request: HubRequest, agent: Agent, project: Project) -> bool:
    by = page_actor(request)
    return policy.allows(by, "run.submit", project_id=project.pk, agent_id=agent.pk)


def _schedules(user: User, agent: Agent, project: Project) -> list[dict[str, Any]]:
    found = Schedule.objects.visible_to(user).filter(agent=agent, project=project)
    return [{"row": row, "words": cron.in_words(row.cron)} for row in found.order_by("name")]


def _followed(request: HubRequest, agent: Agent) -> dict[str, Any]:
    """The run whose log the page follows: the one that was just submitted, named in the address."""
    try:
        wanted = UUID(request.GET.get("run", ""))
    except ValueError:
        return {}
    mine = _runs(person(request)).filter(agent_version__agent=agent)
    run = mine.filter(public_id=wanted).first()
    return _outcome(run) | {"log": log.tail(run)} if run else {}
