from __future__ import annotations

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from apps.identity.adminsite import Window, site
from apps.sandboxes.models import Sandbox

_STATES = {
    "creating": "info",
    "warm": "info",
    "claimed": "success",
    "destroying": "warning",
    "failed": "danger",
}


@admin.register(Sandbox, site=site)
class SandboxAdmin(Window):
    """Which attempt ran where, and how isolated. The machine room writes these rows."""

    section = "Motion"
    icon = "deployed_code"
    organization_path = "organization_id"
    id_columns = ("pk", "run_id", "project_id")
    list_display = ["created_at", "profile", "isolation", "tone", "run", "attempt", "worker"]
    list_filter = ["state", "profile", "driver", "isolation"]
    search_fields = ["worker", "=container_id"]
    ordering = ["-id"]

    @display(description="state", label=_STATES, ordering="state")
    def tone(self, sandbox: Sandbox) -> str:
        return sandbox.state

    @display(description="run")
    def run(self, sandbox: Sandbox) -> SafeString | str:
        if sandbox.run_id is None:
            return ""
        runs = reverse("admin:runs_run_changelist")
        return format_html('<a href="{}?q={}">{}</a>', runs, sandbox.run_id, sandbox.run_id)
