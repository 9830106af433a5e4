"""The narrow tables that keep runs moving. Only the engine writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from apps.identity.adminsite import Window, site
from apps.runs.kin_models import Budget, ChildRun, RunDeadline, Share
from apps.runs.limit_models import Limit
from apps.runs.models import (
    Artifact,
    Attempt,
    BulkAct,
    DeadLetter,
    Dependency,
    Lane,
    ReadyRun,
    RunLease,
    ScheduledRun,
    WaitingRun,
)
from apps.runs.retention_models import Retention


class _OfRun(Window):
    section = "Motion"
    organization_path = "run__organization_id"
    id_columns = ("run__public_id", "run__trace_id")
    search_fields = ["run__name__istartswith"]
    list_select_related = ["run"]
    ordering = ["-run_id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("run__spec", "run__trace", "run__result")

    def get_list_display_links(
        self, request: HttpRequest, list_display: Sequence[str]
    ) -> list[str]:
        """The first column is a link to the run already, so the second one leads to the row."""
        return [list_display[1] if list_display[0] == "run_link" else list_display[0]]

    @display(description="run")
    def run_link(self, row: Any) -> SafeString:
        url = reverse("admin:runs_run_change", args=[row.run_id])
        return format_html('<a href="{}">{}</a>', url, row.run.name)


@admin.register(Attempt, site=site)
class AttemptAdmin(_OfRun):
    """Executions, and how each ended. `lost` means that its worker disappeared."""

    icon = "repeat"
    list_display = [
        "run_link",
        "number",
        "worker_name",
        "started_at",
        "finished_at",
        "outcome",
    ]
    list_filter = ["outcome"]
    search_fields = ["run__name__istartswith", "worker_name"]
    ordering = ["-id"]


@admin.register(RunLease, site=site)
class RunLeaseAdmin(_OfRun):
    """Who holds which run now."""

    icon = "lock_clock"
    list_display = ["run_link", "token", "state", "worker", "dispatched_at", "hard_deadline"]
    list_filter = ["state"]
    list_select_related = ["run", "worker"]
    search_fields = ["run__name__istartswith", "worker__name"]
    ordering = ["-token"]


@admin.register(ReadyRun, site=site)
class ReadyRunAdmin(_OfRun):
    """Runs that wait for a worker, in the order of their lanes; some are parked at a limit."""

    icon = "hourglass_top"
    list_display = ["run_link", "lane", "seq", "dispatches", "is_parked"]
    list_filter = [("gate", admin.EmptyFieldListFilter)]
    list_select_related = ["run", "lane"]
    ordering = ["seq"]

    @display(description="parked", boolean=True)
    def is_parked(self, row: ReadyRun) -> bool:
        return row.gate is not None


@admin.register(ScheduledRun, site=site)
class ScheduledRunAdmin(_OfRun):
    """Runs whose time has not come: a later start, or a retry that backs off."""

    icon = "schedule"
    list_display = ["run_link", "due_at", "dispatches"]
    ordering = ["due_at"]


@admin.register(Artifact, site=site)
class ArtifactAdmin(_OfRun):
    section = "Work"
    icon = "attach_file"
    list_display = ["name", "run_link", "size", "media_type", "created_at", "download"]
    search_fields = ["name", "=sha256"]
    ordering = ["-id"]

    @display(description="download")
    def download(self, artifact: Artifact) -> SafeString:
        path = f"/api/runs/{artifact.run.public_id}/artifacts/{artifact.name}"
        return format_html('<a href="{}">download</a>', path)


@admin.register(Lane, site=site)
class LaneAdmin(Window):
    """The units of fairness: queue and priority class."""

    section = "Motion"
    icon = "format_list_numbered"
    organization_path = "organization_id"
    list_display = ["queue", "priority", "cap", "paused"]
    list_filter = ["priority", "paused"]
    search_fields = ["queue"]


@admin.register(BulkAct, site=site)
class BulkActAdmin(Window):
    """Acts on many runs, and how far each has come. They are asked for on the Runs page or the API."""

    section = "Work"
    icon = "library_add_check"
    organization_path = "organization_id"
    list_display = [
        "created_at",
        "verb",
        "project",
        "asked_by",
        "state",
        "matched",
        "done",
        "refused",
    ]
    list_filter = ["state", "verb"]
    list_select_related = ["project", "asked_by"]
    search_fields = ["asked_by__username"]
    ordering = ["-id"]


@admin.register(DeadLetter, site=site)
class DeadLetterAdmin(_OfRun):
    """Runs that ended in a way nobody wanted. They are requeued in the Hub, or by an action on runs."""

    section = "Work"
    icon = "skull"
    list_display = ["run_link", "code", "project", "written_at", "settled_at"]
    list_filter = [("settled_at", admin.EmptyFieldListFilter)]
    list_select_related = ["run", "project"]


@admin.register(Limit, site=site)
class LimitAdmin(Window):
    """Caps, rates and pauses. They are set over the API and on the queue page."""

    section = "Work"
    icon = "speed"
    organization_path = "organization_id"
    list_display = ["about", "cap", "rate", "queue_limit", "paused_at", "pause_reason"]
    list_filter = ["scope"]
    list_select_related = ["project", "agent"]
    search_fields = ["key", "project__slug", "agent__slug"]

    @display(description="about", ordering="scope")
    def about(self, limit: Limit) -> str:
        return str(limit)

    @display(description="rate")
    def rate(self, limit: Limit) -> str:
        return f"{limit.rate_count} in {limit.rate_seconds} s" if limit.rate_count else "-"


@admin.register(Retention, site=site)
class RetentionAdmin(Window):
    """How long organizations keep ended runs, where they have decided it themselves."""

    section = "Work"
    icon = "auto_delete"
    organization_path = "organization_id"
    list_display = ["organization_id", "run_days", "updated_at"]


@admin.register(WaitingRun, site=site)
class WaitingRunAdmin(_OfRun):
    """Runs that are kept out of the queue until what they depend on has ended."""

    icon = "hourglass_pause"
    list_display = ["run_link", "open", "due_at", "verdict"]
    ordering = ["run_id"]


@admin.register(Dependency, site=site)
class DependencyAdmin(_OfRun):
    """Which run waits for which, and what becomes of it when that one does not succeed."""

    icon = "account_tree"
    list_display = ["run_link", "on", "on_failure"]
    list_filter = ["on_failure"]
    list_select_related = ["run", "on"]
    ordering = ["-id"]


@admin.register(RunDeadline, site=site)
class RunDeadlineAdmin(_OfRun):
    """By when open runs must have ended, over all their attempts and waits."""

    icon = "timer"
    list_display = ["run_link", "at"]
    ordering = ["at"]


@admin.register(ChildRun, site=site)
class ChildRunAdmin(_OfRun):
    """Which run started which, and whether it ends with its parent."""

    icon = "family_history"
    list_display = ["run_link", "parent", "depth", "key", "on_parent_end", "doomed_at"]
    list_filter = ["on_parent_end"]
    list_select_related = ["run", "parent"]
    search_fields = ["run__name__istartswith", "=key"]


@admin.register(Budget, site=site)
class BudgetAdmin(_OfRun):
    """Run seconds that were granted to trees of runs, and what is taken of them."""

    icon = "savings"
    list_display = ["run_link", "granted_s", "taken_s"]


@admin.register(Share, site=site)
class ShareAdmin(_OfRun):
    """What each run holds of the budget of its tree."""

    icon = "pie_chart"
    list_display = ["run_link", "budget", "held_s", "used_s"]
    list_select_related = ["run", "budget"]
