from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms.models import ModelForm
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import action, display

from apps.agents.models import Agent
from apps.core import clock
from apps.core.errors import AosError
from apps.identity.adminsite import (
    Glance,
    OwnRelatedFilter,
    Window,
    granted,
    offer,
    organization_of,
    own,
    site,
)
from apps.identity.rest import page_actor
from apps.projects.models import Project
from apps.runs.admin.submit import SubmitForm
from apps.runs.models import Artifact, Attempt, Lane, Run, RunEvent, RunLease
from apps.runs.services import control, figures, submission
from apps.runs.types import TaskSpec

TONES = {
    "queued": "info",
    "dispatched": "info",
    "running": "info",
    "cancelling": "warning",
    "succeeded": "success",
    "failed": "danger",
    "expired": "warning",
    "dead": "danger",
}


class QueueFilter(admin.SimpleListFilter):
    """Queues as the lanes know them: asking every run would read the whole table."""

    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        lanes = Lane.objects.filter(organization_id=organization_of(request))
        return [(name, name) for name in lanes.values_list("queue", flat=True).distinct()[:100]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Run]) -> QuerySet[Run]:
        return queryset.filter(queue=self.value()) if self.value() else queryset


class AttemptsGlance(Glance):
    model = Attempt
    fields = ["number", "worker_name", "token", "started_at", "finished_at", "outcome", "error"]
    readonly_fields = ["started_at", "finished_at"]


class LeaseGlance(Glance):
    model = RunLease
    verbose_name_plural = "lease"
    fields = ["worker", "token", "seq", "state", "dispatched_at", "hard_deadline"]
    readonly_fields = ["dispatched_at"]


class ArtifactsGlance(Glance):
    model = Artifact
    fields = ["download", "size", "media_type", "sha256"]
    readonly_fields = ["download"]

    @display(description="artifact")
    def download(self, artifact: Artifact) -> SafeString:
        path = f"/api/runs/{artifact.run.public_id}/artifacts/{artifact.name}"
        return format_html('<a href="{}">{}</a>', path, artifact.name)


class EventsGlance(Glance):
    model = RunEvent
    verbose_name_plural = "log"
    fields = ["seq", "kind", "payload", "at"]
    readonly_fields = ["at"]
    ordering = ["seq"]
    per_page = 50


@admin.register(Run, site=site)
class RunAdmin(Window):
    """A window on the runs. Services change them, so every field is read-only here."""

    section = "Work"
    icon = "play_circle"
    add_form = SubmitForm
    organization_path = "organization_id"
    id_columns = ("public_id", "trace_id")
    add_action = "run.submit"
    list_display = [
        "created_at",
        "name",
        "tone",
        "project",
        "agent_version",
        "queue",
        "priority",
        "attempts",
        "trace_link",
        "page_link",
    ]
    list_display_links = ["created_at", "name"]
    list_filter = [
        "state",
        "priority",
        QueueFilter,
        ("project", OwnRelatedFilter),
        ("agent_version__agent", OwnRelatedFilter),
    ]
    list_select_related = ["project", "agent_version__agent", "lease"]
    search_fields = ["name__istartswith", "=queue"]
    search_help_text = "A run id, a trace id, or how the name begins."
    ordering = ["-id"]
    fieldsets = (
        (None, {"fields": ["public_id", "name", "tone", "links", "result", "error"]}),
        (
            "What was asked",
            {
                "fields": [
                    "project",
                    "agent_version",
                    "submitted_by",
                    "rerun_of",
                    "queue",
                    "priority",
                    "spec",
                    "retry",
                    "labels",
                    "timeout_s",
                ]
            },
        ),
        (
            "What happened",
            {
                "fields": [
                    "created_at",
                    "run_at",
                    "queue_deadline",
                    "total_deadline",
                    "started_at",
                    "finished_at",
                    "attempts",
                    "crash_count",
                    "isolation",
                    "trace_id",
                ]
            },
        ),
    )
    add_fieldsets = ((None, {"fields": ["agent", "project", "file", "input", "key"]}),)
    readonly_fields = ["tone", "links", "public_id", "created_at"]
    inlines = [AttemptsGlance, LeaseGlance, ArtifactsGlance, EventsGlance]
    actions = ["cancel", "rerun", "requeue"]
    actions_detail = ["cancel_one", "rerun_one"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        """Without the columns that may be a megabyte each; a run's own page reads them for itself."""
        rows: QuerySet[Run] = super().get_queryset(request)
        return rows.defer("spec", "trace", "result", "agent_version__spec")

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        return list(self.inlines) if obj else []

    def resource_id(self, obj: Run) -> str:
        return str(obj.public_id)

    # --- what is shown

    @display(description="state", label=TONES, ordering="state")
    def tone(self, run: Run) -> str:
        return run.shown_state

    @display(description="trace")
    def trace_link(self, run: Run) -> SafeString:
        events = reverse("admin:events_event_changelist")
        return format_html('<a href="{}?q={}">{}…</a>', events, run.trace_id, run.trace_id[:8])

    @display(description="page")
    def page_link(self, run: Run) -> SafeString:
        return format_html('<a href="/runs/{}">open</a>', run.public_id)

    @display(description="elsewhere")
    def links(self, run: Run) -> SafeString:
        lease = getattr(run, "lease", None)
        sent = lease.seq if lease else max(run.attempts, 1)
        trace = f"?q={run.trace_id}"
        return format_html_join(
            " · ",
            '<a class="text-primary-600 hover:underline dark:text-primary-500" href="{}">{}</a>',
            [
                (f"/runs/{run.public_id}", "Run page"),
                (f"/flower/task/{run.public_id}.{sent}", "Flower"),
                (f"/api/runs/{run.public_id}/events", "Log as JSON"),
                (reverse("admin:events_event_changelist") + trace, "Events of the trace"),
                (reverse("admin:events_auditentry_changelist") + trace, "Audit of the trace"),
                (reverse("admin:runs_run_changelist") + trace, "Runs of the trace"),
            ],
        )

    # --- submit

    def fit_add_form(
        self, request: HttpRequest, form: type[ModelForm[Any]]
    ) -> type[ModelForm[Any]]:
        agents = own(Agent, request, self.admin_site).filter(current__isnull=False)
        offer(form, "agent", agents)
        offer(form, "project", own(Project, request, self.admin_site))
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001
        wanted = form.cleaned_data
        run = submission.submit(
            by=page_actor(request),
            project=wanted["project"],
            agent=wanted["agent"],
            task=TaskSpec(input=wanted["input"]),
            key=wanted["key"],
        ).run
        obj.pk, obj.name = run.pk, run.name

    # --- actions

    def has_cancel_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return granted(request, "run.cancel")

    def has_rerun_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return granted(request, "run.rerun")

    def has_requeue_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return granted(request, "run.requeue")

    @admin.action(description="Requeue the chosen dead runs", permissions=["requeue"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        by = page_actor(request)
        self._each(request, queryset, lambda run: control.requeue(by=by, run=run), "requeued")

    @admin.action(description="Cancel the chosen runs", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        by = page_actor(request)
        self._each(request, queryset, lambda run: control.cancel(by=by, run=run), "cancelled")

    @admin.action(description="Run the chosen ones again", permissions=["rerun"])
    def rerun(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        by = page_actor(request)
        self._each(request, queryset, lambda run: control.rerun(by=by, run=run), "run again")

    def _each(self, request: HttpRequest, runs: QuerySet[Run], act: Any, done: str) -> None:
        """One service call a run: what one refuses does not undo the others."""
        refused = []
        chosen = list(runs)
        for run in chosen:
            try:
                act(run)
            except AosError as error:
                refused.append(f"{run.name}: {error}")
        self.message_user(request, f"{len(chosen) - len(refused)} {done}.", messages.SUCCESS)
        for reason in refused:
            self.message_user(request, reason, messages.ERROR)

    @action(description="Cancel", permissions=["cancel"], icon="cancel")
    def cancel_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        run = self.row(request, object_id)
        if request.method != "POST":
            text = "A run that waits ends at once; one that runs is stopped by its worker."
            return self._ask(
                request, run, title=f"Cancel {run.name}?", text=text, submit="Cancel the run"
            )
        by = page_actor(request)
        self.attempt(request, lambda: control.cancel(by=by, run=run), done="The run is cancelled.")
        return self.back(run.pk)

    @action(description="Run again", permissions=["rerun"], icon="replay")
    def rerun_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        run = self.row(request, object_id)
        if request.method != "POST":
            text = "A new run with the same input and files, on the agent's current version."
            return self._ask(
                request, run, title=f"Run {run.name} again?", text=text, submit="Run again"
            )
        by, key = page_actor(request), request.POST.get("key", "")[:64] or None
        self.attempt(
            request, lambda: control.rerun(by=by, run=run, key=key), done="A new run is accepted."
        )
        return self.back()

    def _ask(
        self, request: HttpRequest, run: Run, *, title: str, text: str, submit: str
    ) -> HttpResponse:
        """A page between the link and the act: following a link changes nothing."""
        context = {
            "title": title,
            "text": text,
            "submit": submit,
            "key": uuid.uuid4().hex,
            "cancel": reverse("admin:runs_run_change", args=[run.pk]),
        }
        return self.page(request, "identity/admin_confirm.html", context)


def overview(request: HttpRequest) -> list[tuple[str, object, str]]:
    """The figures on the admin's first page."""
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    mine = figures.workload(organization_of(request), since=midnight)
    all_ = figures.platform()
    leader = f"epoch {all_.leader_epoch}" if all_.leader_alive else "nobody leads"
    runs, workers = (
        reverse("admin:runs_run_changelist"),
        reverse("admin:runs_workernode_changelist"),
    )
    return [
        ("Queued", mine.queued, f"{runs}?state__exact=queued"),
        ("Running", mine.running, f"{runs}?state__exact=running"),
        ("Failed today", mine.failed, f"{runs}?state__exact=failed"),
        ("Workers alive", all_.workers, workers),
        ("Engine", leader, reverse("admin:runs_leader_changelist")),
    ]


site.figures.append(overview)
