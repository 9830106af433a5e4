"""Windows on schedules: when they are due, what came of it, and the buttons to pause and resume."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from apps.identity.adminsite import Glance, OwnRelatedFilter, Window, granted, site
from apps.identity.rest import page_actor
from apps.runs import cron
from apps.runs.models import Schedule, ScheduleFire
from apps.runs.services import schedules

_OUTCOMES = {"submitted": "success", "missed": "warning", "refused": "danger"}


class FiresGlance(Glance):
    model = ScheduleFire
    fields = ["fire_at", "outcome", "run", "detail"]
    readonly_fields = ["run"]
    ordering = ["-id"]
    per_page = 20


@admin.register(Schedule, site=site)
class ScheduleAdmin(Window):
    """Tasks that are submitted again and again. They are made and changed over the API."""

    section = "Work"
    icon = "event_repeat"
    organization_path = "organization_id"
    list_display = ["name", "project", "agent", "words", "timezone", "tone", "next_at"]
    list_filter = ["catch_up", ("project", OwnRelatedFilter)]
    list_select_related = ["project", "agent"]
    search_fields = ["name"]
    fields = [
        "name",
        "project",
        "agent",
        "words",
        "cron",
        "timezone",
        "catch_up",
        "next_at",
        "submits_as",
        "paused_at",
        "pause_reason",
        "task",
        "created_at",
    ]
    readonly_fields = ["words", "created_at"]
    inlines = [FiresGlance]
    actions = ["pause", "resume"]

    @display(description="in words")
    def words(self, schedule: Schedule) -> str:
        return cron.in_words(schedule.cron)

    @display(description="state", label={"on": "success", "paused": "warning"})
    def tone(self, schedule: Schedule) -> str:
        return "paused" if schedule.paused_at else "on"

    def has_manage_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return granted(request, "schedule.manage")

    @admin.action(description="Pause the chosen schedules", permissions=["manage"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        by = page_actor(request)
        for schedule in queryset:
            schedules.pause(by=by, schedule=schedule)
        self.message_user(request, "They are paused.")

    @admin.action(description="Resume the chosen schedules", permissions=["manage"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        by = page_actor(request)
        for schedule in queryset:
            schedules.resume(by=by, schedule=schedule)
        self.message_user(request, "They go on, and submit as you.")


@admin.register(ScheduleFire, site=site)
class ScheduleFireAdmin(Window):
    """Times at which schedules were due, and what came of each."""

    section = "Motion"
    icon = "event_available"
    organization_path = "schedule__organization_id"
    id_columns = ("run__public_id", "schedule")
    list_display = ["schedule", "fire_at", "tone", "run_link", "detail"]
    list_display_links = ["fire_at"]
    list_filter = ["outcome"]
    list_select_related = ["schedule", "run"]
    search_fields = ["schedule__name"]
    ordering = ["-id"]

    @display(description="outcome", label=_OUTCOMES, ordering="outcome")
    def tone(self, fire: ScheduleFire) -> str:
        return fire.outcome

    @display(description="run")
    def run_link(self, fire: ScheduleFire) -> str:
        if fire.run is None:
            return "-"
        url = reverse("admin:runs_run_change", args=[fire.run_id])
        return format_html('<a href="{}">{}</a>', url, fire.run.name)
