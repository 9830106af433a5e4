"""The processes. They serve every organization, so these rows belong to none."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from unfold.decorators import display

from apps.core import clock
from apps.core.labels import spelled
from apps.identity.adminsite import Window, site
from apps.runs.fleet_models import Leader, WorkerNode


@admin.register(WorkerNode, site=site)
class WorkerNodeAdmin(Window):
    """Worker processes, one row for each start."""

    section = "Motion"
    icon = "memory"
    organization_path = None
    id_columns = ("incarnation",)
    list_display = [
        *("name", "life", "host", "pid", "version", "offers"),
        *("slots", "running", "last_seen"),
    ]
    list_filter = ["draining"]
    search_fields = ["name", "host"]
    ordering = ["-id"]

    @display(description="labels")
    def offers(self, worker: WorkerNode) -> str:
        return spelled(worker.labels)

    @display(description="life", label={"alive": "success", "silent": "danger", "gone": "info"})
    def life(self, worker: WorkerNode) -> str:
        if worker.gone_at:
            return "gone"
        return "alive" if worker.last_seen > clock.now() - settings.AOS_WORKER_TTL else "silent"


@admin.register(Leader, site=site)
class LeaderAdmin(Window):
    """Which engine leads. The epoch grows with each change of hands."""

    section = "Motion"
    icon = "crown"
    organization_path = None
    list_display = ["shard", "holder", "epoch", "expires_at"]
    search_fields = ["holder"]
    ordering = ["shard"]
