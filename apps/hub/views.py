"""The pages. Each view finds what the person may see, asks a service, and hands on to a template.

A fragment is a page too: asked without htmx it answers with the whole page, or leads to it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.agents.models import Agent
from apps.core.errors import AosError, ContentGone, Invalid, NotFound
from apps.core.rest import downloads
from apps.events.models import Event
from apps.hub import advice, cards, files, frame, inputs, log, previews, timeline
from apps.hub.visiting import HubRequest, person, signed_in
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import User
from apps.projects.models import Project, WorkspaceFile
from apps.projects.services import files as project_files
from apps.runs.models import Artifact, Run, RunQuerySet
from apps.runs.services import control, dependencies, kin, queues, submission
from apps.runs.types import RunState, TaskSpec

_STREAM_PAGE: Final = 60
# A reader that was away longer than this many events gets the newest ones and "earlier" above them.
_CATCH_UP: Final = 200
_LIST_PAGE: Final = 30
_TABS: Final = 4
_EARLIER_RUNS: Final = 5
_PALETTE_RUNS: Final = 8
_STORED_FILES: Final = 50


# Chat Hub


@signed_in
@require_GET
def chat(request: HubRequest) -> HttpResponse:
    user = person(request)
    only = _run(user, request.GET["run"]) if request.GET.get("run") else None
    shown = _run(user, request.GET["panel"]) if request.GET.get("panel") else only
    project = shown.project if shown else _chosen_project(request)
    around = frame.of(request, project=project)
    context: dict[str, Any] = {"page": "chat", "frame": around, "project": around.project}
    if around.project is None:
        return render(request, "hub/chat.html", context)
    context |= _stream(user, around.project, only=only)
    context |= _composer(user, around.project, agent_slug=request.GET.get("agent"))
    name = request.GET.get("file")
    context |= {
        "tabs": _tabs(around.recent, only),
        "panel": _panel(shown, name) if shown else _latest_panel(user, around.project),
    }
    return render(request, "hub/chat.html", context)


def _chosen_project(request: HubRequest) -> Project | None:
    """The project named in the address becomes the current one."""
    if not (slug := request.GET.get("project")):
        return None
    project = get_object_or_404(Project.objects.visible_to(person(request)), slug=slug)
    request.session[frame.SESSION_KEY] = str(project.pk)
    return project


def _tabs(recent: Sequence[Run], only: Run | None) -> list[Run]:
    tabs = list(recent[:_TABS])
    if only and only not in tabs:
        tabs = [*tabs[: _TABS - 1], only]
    return tabs


def _stream(user: User, project: Project, *, only: Run | None) -> dict[str, Any]:
    events = _events(project, only=only)
    newest = list(events.order_by("-seq")[:_STREAM_PAGE])[::-1]
    return {
        "only": only,
        "items": _items(newest, user, only),
        "last_seq": newest[-1].seq if newest else 0,
        "earlier": _earlier(events, newest, project, only),
    }


def _events(project: Project, *, only: Run | None) -> QuerySet[Event]:
    events = Event.objects.after(0, project_id=project.pk)
    return events.filter(run_id=only.public_id) if only else events


def _items(events: Sequence[Event], user: User, only: Run | None) -> list[cards.Card | cards.Group]:
    return cards.arrange(cards.deal(events, to=user), run_id=only.public_id if only else None)


def _earlier(
    events: QuerySet[Event], shown: Sequence[Event], project: Project, only: Run | None
) -> str:
    """Where the events before the shown ones are; empty when there are none."""
    if not shown or not events.filter(seq__lt=shown[0].seq).exists():
        return ""
    query = {"before": shown[0].seq} | ({"run": only.public_id} if only else {})
    return f"{reverse('cards', args=[project.pk])}?{urlencode(query)}"


@signed_in
@require_GET
def event_cards(request: HubRequest, project_id: UUID) -> HttpResponse:
    """Cards of a span of events: behind ``after`` (to ``until``), or before ``before``."""
    user = person(request)
    project = get_object_or_404(Project.objects.visible_to(user), pk=project_id)
    if not request.htmx:
        return redirect(f"{reverse('chat')}?{urlencode({'project': project.slug})}")
    only = _run(user, request.GET["run"]) if request.GET.get("run") else None
    if before := _whole(request, "before"):
        events = _events(project, only=only)
        shown = list(events.filter(seq__lt=before).order_by("-seq")[:_STREAM_PAGE])[::-1]
        earlier = _earlier(events, shown, project, only)
        context = {"items": _items(shown, user, only), "earlier": earlier}
        return render(request, "hub/cards/span.html", context)
    return _behind(request, project, only)


def _behind(request: HubRequest, project: Project, only: Run | None) -> HttpResponse:
    """The newest cards behind ``after``; what lies between is one line that leads there."""
    after, until = _whole(request, "after") or 0, _whole(request, "until")
    events = _events(project, only=only).filter(seq__gt=after)
    if until:
        events = events.filter(seq__lte=until)
    shown = list(events.order_by("-seq")[:_CATCH_UP])[::-1]
    if not shown:
        return HttpResponse(status=204)
    items: list[cards.Card | cards.Group] = [*cards.deal(shown, to=person(request))]
    if "all" not in request.GET:
        items = _items(shown, person(request), only)
    if missed := events.filter(seq__lt=shown[0].seq).count():
        between = cards.Group(
            project_id=project.pk,
            run_id=only.public_id if only else None,
            first=after + 1,
            last=shown[0].seq - 1,
            count=missed,
        )
        items = [between, *items]
    response = render(request, "hub/cards/items.html", {"items": items})
    response.headers["X-Aos-Seq"] = str(shown[-1].seq)
    return response


def _whole(request: HubRequest, name: str) -> int | None:
    text = request.GET.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdecimal():
        raise BadRequest(f"{name} is not a number")
    return int(text)


# Composer


def _composer(user: User, project: Project, *, agent_slug: str | None = None) -> dict[str, Any]:
    """What the composer needs: the agents one may run here, and the form of the chosen one."""
    released = Agent.objects.visible_to(user).released().select_related("current")
    runs_all = policy.allows(Actor(user=user), "run.submit", project_id=project.pk)
    agents = list(released if runs_all else released.operated_by(user))
    may_submit = runs_all or bool(agents)
    chosen = next((agent for agent in agents if agent.slug == agent_slug), None)
    chosen = chosen or (agents[0] if agents else None)
    form = inputs.compose(chosen, stored=_stored(project)) if chosen else None
    return {
        "project": project,
        "may_submit": may_submit,
        "agents": agents,
        "composer": form,
    }


def _stored(project: Project) -> list[str]:
    """Files of the project that can be used again, newest first."""
    files = WorkspaceFile.objects.filter(project=project).order_by("-updated_at")
    return list(files.values_list("name", flat=True)[:_STORED_FILES])


@signed_in
@require_GET
def composer(request: HubRequest, project_id: UUID) -> HttpResponse:
    user = person(request)
    project = get_object_or_404(Project.objects.visible_to(user), pk=project_id)
    slug = request.GET.get("agent", "")
    if not request.htmx:
        query = urlencode({"project": project.slug, "agent": slug})
        return redirect(f"{reverse('chat')}?{query}")
    return render(request, "hub/composer.html", _composer(user, project, agent_slug=slug))


@signed_in
@require_POST
def submit(request: HubRequest, project_id: UUID) -> HttpResponse:
    """Store the uploaded files, submit the run, and give a fresh composer back."""
    user = person(request)
    project = get_object_or_404(Project.objects.visible_to(user), pk=project_id)
    agents = Agent.objects.visible_to(user).released().select_related("current")
    agent = get_object_or_404(agents, slug=request.POST.get("agent", ""))
    context = _composer(user, project, agent_slug=agent.slug)
    values: dict[str, Any] = {}
    try:
        filled = inputs.read(agent, request.POST, request.FILES)
        values = filled.values
        run = _submit(Actor(user=user), project, agent, filled, key=_key(request))
    except AosError as error:
        problem = error if isinstance(error, Invalid) else None
        form = inputs.compose(agent, stored=_stored(project), values=values, problem=problem)
        if problem is None:
            form.errors.append(str(error))
        context["composer"] = form
        return _composer_answer(request, context, project, status=error.status)
    if not request.htmx:
        return redirect(f"{reverse('chat')}?{urlencode({'run': run.public_id})}")
    response = render(request, "hub/composer.html", context)
    response.headers["HX-Trigger"] = json.dumps({"aos:say": {"text": f"Accepted: {run.name}"}})
    return response


def _submit(
    by: Actor, project: Project, agent: Agent, filled: inputs.Filled, *, key: str | None
) -> Run:
    for field, upload in filled.uploads.items():
        name = inputs.file_name(upload)
        stored = project_files.put(by=by, project=project, name=name, chunks=upload.chunks())
        filled.values[field] = stored.name
    task = TaskSpec(input=filled.values)
    return submission.submit(by=by, project=project, agent=agent, task=task, key=key).run


def _composer_answer(
    request: HubRequest, context: dict[str, Any], project: Project, *, status: int
) -> HttpResponse:
    """The form with its errors: in place, or inside the whole page for a browser without script."""
    if request.htmx:
        return render(request, "hub/composer.html", context, status=422)
    user = person(request)
    around = frame.of(request, project=project)
    whole = {"page": "chat", "frame": around, "tabs": around.recent[:_TABS]}
    whole |= {"panel": _latest_panel(user, project)}
    whole |= _stream(user, project, only=None) | context
    return render(request, "hub/chat.html", whole, status=status)


def _key(request: HubRequest) -> str | None:
    """The form's own Idempotency-Key: a double click is one submission."""
    return request.POST.get("key", "")[:255] or None


# Workspace: a run's files beside the stream


@signed_in
@require_GET
def workspace(request: HubRequest, public_id: UUID) -> HttpResponse:
    run = _run(person(request), public_id)
    name = request.GET.get("file")
    if not request.htmx:
        query = {"panel": run.public_id} | ({"file": name} if name else {})
        return redirect(f"{reverse('chat')}?{urlencode(query)}")
    return render(request, "hub/workspace.html", {"panel": _panel(run, name)})


@signed_in
@require_GET
def latest_workspace(request: HubRequest, project_id: UUID) -> HttpResponse:
    """The workspace while nobody has chosen a run: it goes along with the newest files."""
    user = person(request)
    project = get_object_or_404(Project.objects.visible_to(user), pk=project_id)
    if not request.htmx:
        return redirect(f"{reverse('chat')}?{urlencode({'project': project.slug})}")
    return render(request, "hub/workspace.html", {"panel": _latest_panel(user, project)})


def _latest_panel(user: User, project: Project) -> dict[str, Any]:
    runs = _runs(user).filter(project=project)
    run = runs.filter(Exists(Artifact.objects.filter(run=OuterRef("pk")))).first() or runs.first()
    following = {"self_url": reverse("latest_workspace", args=[project.pk]), "follow": "any"}
    return (_panel(run, None) if run else {"run": None}) | following


def _panel(run: Run, file_name: str | None) -> dict[str, Any]:
    found = [files.of(run.public_id, artifact) for artifact in run.artifacts.all()]
    chosen = next((file for file in found if file.name == file_name), previews.choose(found))
    query = f"?{urlencode({'file': chosen.name})}" if chosen else ""
    return {
        "run": run,
        "files": found,
        "file": chosen,
        "preview": previews.of(chosen, siblings=found) if chosen else None,
        "self_url": reverse("workspace", args=[run.public_id]) + query,
        "follow": run.public_id,
    }


# Runs


def _runs(user: User) -> RunQuerySet:
    return Run.objects.visible_to(user).select_related(
        "project", "agent_version__agent", "submitted_by", "lease__worker"
    )


def _run(user: User, public_id: str | UUID) -> Run:
    try:
        wanted = UUID(str(public_id))
    except ValueError as error:
        raise Http404 from error
    return get_object_or_404(_runs(user), public_id=wanted)


@signed_in
@require_GET
def runs(request: HubRequest) -> HttpResponse:
    user = person(request)
    around = frame.of(request)
    chosen = {"state": request.GET.get("state", ""), "agent": request.GET.get("agent", "")}
    tree = {
        name: str(_run(user, request.GET[name]).public_id)
        for name in ("parent", "root")
        if request.GET.get(name)
    }
    found = _runs(user).filter(project=around.project)
    if chosen["state"]:
        found = found.filter(state=chosen["state"])
    if chosen["agent"]:
        found = found.filter(agent_version__agent__slug=chosen["agent"])
    for name, above in tree.items():
        found = found.filter(**{f"child_of__{name}__public_id": above})
    if before := request.GET.get("before"):
        found = found.filter(pk__lt=_run(user, before).pk)
    page = list(found.newest(_LIST_PAGE + 1))
    context = {
        "page": "runs",
        "frame": around,
        "project": around.project,
        "chosen": chosen,
        "states": list(RunState),
        "agents": Agent.objects.visible_to(user),
        "runs": page[:_LIST_PAGE],
        "more": _more(page, chosen | tree),
        "tree": tree,
        "narrowed": urlencode({name: value for name, value in chosen.items() if value}),
        # An act on many runs is asked for by state and agent only.
        "may_bulk": around.project is not None
        and not tree
        and policy.allows(Actor(user=user), "run.bulk", project_id=around.project.pk),
    }
    if before and request.htmx:
        return render(request, "hub/runs/rows.html", context)
    in_place = request.htmx and not request.htmx.history_restore_request
    return render(request, "hub/runs/sheet.html" if in_place else "hub/runs.html", context)


def _more(page: Sequence[Run], chosen: dict[str, str]) -> str:
    if len(page) <= _LIST_PAGE:
        return ""
    query = {name: value for name, value in chosen.items() if value}
    return f"{reverse('runs')}?{urlencode(query | {'before': page[_LIST_PAGE - 1].public_id})}"


@signed_in
@require_GET
def run_row(request: HubRequest, public_id: UUID) -> HttpResponse:
    run = _run(person(request), public_id)
    if not request.htmx:
        return redirect("run", public_id=run.public_id)
    return render(request, "hub/runs/row.html", {"run": run})


@signed_in
@require_GET
def tabs(request: HubRequest, project_id: UUID) -> HttpResponse:
    user = person(request)
    project = get_object_or_404(Project.objects.visible_to(user), pk=project_id)
    if not request.htmx:
        return redirect("chat")
    only = _run(user, request.GET["run"]) if request.GET.get("run") else None
    shown = _tabs(frame.recent(user, project), only)
    return render(request, "hub/tabs.html", {"tabs": shown, "only": only})


@signed_in
@require_GET
def recent(request: HubRequest, project_id: UUID) -> HttpResponse:
    user = person(request)
    project = get_object_or_404(Project.objects.visible_to(user), pk=project_id)
    if not request.htmx:
        return redirect("runs")
    return render(request, "hub/shell/recent.html", {"runs": frame.recent(user, project)})


@signed_in
@require_GET
def run(request: HubRequest, public_id: UUID) -> HttpResponse:
    user = person(request)
    project = _run(user, public_id).project
    around = None if request.htmx else frame.of(request, project=project)
    # Read after the frame, so that whatever happens in between is announced again by the socket.
    shown = _run(user, public_id)
    context = {"page": "runs", "frame": around, "run": shown} | _story(user, shown)
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "hub/run/live.html", context)
    context["log"] = log.tail(shown)
    return render(request, "hub/run.html", context)


def _story(user: User, run: Run) -> dict[str, Any]:
    attempts = list(run.attempt_set.order_by("number"))
    events = list(Event.objects.filter(run_id=run.public_id).order_by("seq"))
    lease = getattr(run, "lease", None)
    result = run.result or {}
    tones = {RunState.SUCCEEDED: "ok", RunState.FAILED: "bad", RunState.DEAD: "bad"}
    by, place = Actor(user=user), run.place
    return {
        "may_cancel": not run.is_over and policy.allows(by, "run.cancel", **place),
        "may_rerun": submission.may_run(
            by, project_id=place["project_id"], agent_id=place["agent_id"], action="run.rerun"
        ),
        "rerun_key": uuid.uuid4().hex,
        "timeline": timeline.tell(run, attempts=attempts, events=events),
        "progress": timeline.progress(run, attempts=attempts, events=events),
        "progress_tone": tones.get(RunState(run.state), ""),
        "waiting": queues.why_waiting(run),
        "plan": [] if run.is_over else log.plan(run),
        "worker": lease.worker.name if lease and lease.worker else "",
        "failure": advice.explain(run.error),
        "files": [files.of(run.public_id, artifact) for artifact in run.artifacts.all()],
        "result": {
            "summary": result.get("summary", ""),
            "facts": cards.pairs(result.get("facts")),
        },
        "inputs": _inputs(run),
        "earlier": _earlier_runs(user, run),
        "links": dependencies.around(run, to=user) if run.linked else {},
        "family": kin.family(run, to=user) if run.kin else None,
    }


def _inputs(run: Run) -> list[dict[str, Any]]:
    """The run's input by field; a file with its size, a long text cut short."""
    sizes = {item["name"]: item["size"] for item in run.spec.get("files", [])}
    shown = []
    for name, value in run.spec.get("input", {}).items():
        text = value if isinstance(value, str) else None
        cut = f"{text[:200]}… ({len(text):,} characters)" if text and len(text) > 240 else value
        shown.append({"name": name, "value": cut, "size": sizes.get(text) if text else None})
    return shown


def _earlier_runs(user: User, run: Run) -> list[Run]:
    agent = run.agent_version.agent_id
    found = Run.objects.visible_to(user).filter(
        project=run.project_id, agent_version__agent=agent, pk__lt=run.pk
    )
    return list(found.newest(_EARLIER_RUNS))


@signed_in
@require_GET
def run_log(request: HubRequest, public_id: UUID) -> HttpResponse:
    """The whole log as a text file. Its size is bounded by the agent's output limit."""
    run = _run(person(request), public_id)
    response = HttpResponse("".join(log.as_text(run)), content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="run-{run.public_id}.log"'
    return response


@signed_in
@require_GET
def run_file(request: HubRequest, public_id: UUID, name: str) -> HttpResponse:
    """One artifact, readable: a page, or the content of a dialog."""
    shown = _run(person(request), public_id)
    found = [files.of(shown.public_id, artifact) for artifact in shown.artifacts.all()]
    file = next((file for file in found if file.name == name), None)
    if file is None:
        raise Http404
    context = {
        "page": "runs",
        "run": shown,
        "file": file,
        "preview": previews.of(file, siblings=found),
    }
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "hub/artifact_dialog.html", context)
    context["frame"] = frame.of(request, project=shown.project)
    return render(request, "hub/artifact.html", context)


@signed_in
@require_GET
def run_pdf(request: HubRequest, public_id: UUID, name: str) -> HttpResponseBase:
    """A PDF as the browser's own viewer shows it, as a page of its own. What is none has its preview."""
    run = _run(person(request), public_id)
    artifact = run.artifacts.filter(name=name).first() if "\0" not in name else None
    if artifact is None:
        raise Http404
    try:
        return downloads.show_pdf(
            request, sha256=artifact.sha256, name=artifact.name, size=artifact.size
        )
    except (NotFound, ContentGone):
        return redirect("run_file", public_id=run.public_id, name=artifact.name)


@signed_in
@require_POST
def run_cancel(request: HubRequest, public_id: UUID) -> HttpResponse:
    user = person(request)
    run = _run(user, public_id)
    try:
        control.cancel(by=Actor(user=user), run=run)
    except AosError as error:
        messages.error(request, str(error), extra_tags="bad")
    return redirect("run", public_id=run.public_id)


@signed_in
@require_POST
def run_rerun(request: HubRequest, public_id: UUID) -> HttpResponse:
    user = person(request)
    run = _run(user, public_id)
    try:
        again = control.rerun(by=Actor(user=user), run=run, key=_key(request)).run
    except AosError as error:
        messages.error(request, str(error), extra_tags="bad")
        return redirect("run", public_id=run.public_id)
    return redirect("run", public_id=again.public_id)


# Command palette


@signed_in
@require_GET
def palette(request: HubRequest) -> HttpResponse:
    user = person(request)
    query = request.GET.get("q", "").strip()[:100]
    if not request.htmx:
        return redirect("chat")
    around = frame.of(request)
    projects = [project for project in around.projects if query.lower() in project.name.lower()]
    groups = {
        "Pages": [entry for entry in _pages(around) if query.lower() in entry["label"].lower()],
        "Projects": [_project_entry(project) for project in projects[:_PALETTE_RUNS]],
        "Runs": [_run_entry(run) for run in _matching(user, query)],
    }
    shown = [(name, entries) for name, entries in groups.items() if entries]
    return render(request, "hub/shell/palette_results.html", {"groups": shown, "query": query})


def _entry(icon: str, label: str, href: str, hint: str = "") -> dict[str, str]:
    return {"icon": icon, "label": label, "href": href, "hint": hint}


def _pages(around: frame.Frame) -> list[dict[str, str]]:
    pages = [
        _entry("messages", "Chat Hub", reverse("chat")),
        _entry("player-play", "Runs", reverse("runs")),
        _entry("calendar-time", "Schedules", reverse("schedules")),
        _entry("skull", "Dead letters", reverse("dead_letters")),
        _entry("stack-2", "Bulk acts", reverse("bulk_list")),
        _entry("code", "Scripts", reverse("sandbox_scripts")),
        _entry("box", "Environments", reverse("sandbox_environments")),
        _entry("stack-2", "Sandbox images", reverse("sandbox_images")),
        _entry("box", "Sandbox instances", reverse("sandbox_instances")),
    ]
    if around.may_see_people:
        pages.append(_entry("users", "Access", reverse("access_people")))
    if around.may_audit:
        pages.append(_entry("clipboard-list", "Audit log", reverse("audit")))
    pages.append(_entry("book", "API docs", "/api/docs"))
    if around.may_admin:
        pages.append(_entry("shield-check", "Django admin", "/admin/"))
    if around.may_watch:
        pages.append(_entry("activity", "Queue", reverse("queue")))
        pages.append(_entry("stack-2", "Flower", "/flower/"))
    return pages


def _project_entry(project: Project) -> dict[str, str]:
    href = f"{reverse('chat')}?{urlencode({'project': project.slug})}"
    return _entry("folders", project.name, href, "project")


def _run_entry(run: Run) -> dict[str, str]:
    href = reverse("run", args=[run.public_id])
    return _entry("player-play", run.name, href, f"{run.shown_state} · {run.project.name}")


def _matching(user: User, query: str) -> list[Run]:
    """Runs by name, newest first; by run id or trace id when that is what was pasted."""
    found = _runs(user)
    try:
        # A trace id reads as a UUID too.
        found = found.filter(Q(public_id=UUID(query)) | Q(trace_id=query))
    except ValueError:
        found = found.filter(name__icontains=query)
    return list(found.newest(_PALETTE_RUNS))
