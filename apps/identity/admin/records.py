from __future__ import annotations

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from apps.events.models import AuditEntry, Event, OutboxEntry
from apps.identity.adminsite import Window, site

_TONES = {"info": "info", "success": "success", "warning": "warning", "error": "danger"}


class _Fact(Window):
    section = "Records"
    organization_path = "organization_id"
    id_columns = ("event_id", "run_id", "trace_id", "project_id")
    list_filter = ["type", "severity"]
    search_fields = ["payload__title"]

    @display(description="severity", label=_TONES, ordering="severity")
    def tone(self, event: Event) -> str:
        return event.severity

    @display(description="title")
    def title(self, event: Event) -> str:
        return str(event.payload.get("title", ""))

    @display(description="run")
    def run(self, event: Event) -> str:
        """By value: the run's own page, found by its id."""
        if event.run_id is None:
            return "-"
        runs = reverse("admin:runs_run_changelist")
        return format_html('<a href="{}?q={}">{}</a>', runs, event.run_id, event.run_id)


@admin.register(Event, site=site)
class EventAdmin(_Fact):
    """The log of value events: append-only, so there is nothing to change."""

    icon = "timeline"
    list_display = ["at", "seq", "type", "tone", "title", "run", "trace_id"]


@admin.register(OutboxEntry, site=site)
class OutboxEntryAdmin(_Fact):
    """Value events on their way to the log. Rows that stay mean that no engine leads."""

    icon = "outbox"
    list_display = ["at", "type", "tone", "title", "run", "trace_id"]


@admin.register(AuditEntry, site=site)
class AuditEntryAdmin(Window):
    """Who did what. Written with the act, never changed."""

    section = "Records"
    icon = "verified_user"
    organization_path = "organization_id"
    id_columns = ("actor_id", "agent_id", "run_id", "token_id", "trace_id", "resource_id")
    list_display = ["at", "actor_name", "action", "resource_type", "resource", "trace_id"]
    list_filter = ["actor_kind"]
    search_fields = ["=actor_name", "action__startswith", "=resource_type", "=resource_id"]

    @display(description="resource")
    def resource(self, entry: AuditEntry) -> str:
        return entry.resource_id
