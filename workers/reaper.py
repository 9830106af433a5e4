"""Destroys sandboxes of this host that no living worker needs any more."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from apps.runs.fleet_models import WorkerNode
from apps.runs.models import Run
from apps.runs.types import FINAL, LeaseState
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from workers.sandbox.base import SandboxDriver


def sweep(driver: SandboxDriver) -> int:
    """Write off the records of the dead, then destroy what no record spares; return how many.

    An attempt's sandbox is spared by its lease, unless the process is known to be gone that held its
    line; one that waits is spared by that process. Never by age: a long run is not an orphan, and a
    fresh one may be. Workspaces that were put away are kept until their run has ended.
    """
    executing = Run.objects.filter(
        public_id=OuterRef("run_id"), attempts=OuterRef("attempt"), lease__state=LeaseState.RUNNING
    )
    holder = WorkerNode.objects.filter(incarnation=OuterRef("incarnation"))
    holding = holder.filter(gone_at=None, last_seen__gt=Now() - settings.AOS_WORKER_TTL)
    spared = Q(Exists(executing)) & ~Q(Exists(holder.exclude(gone_at=None)))
    spared |= Q(Exists(holding), run_id=None)
    for pk in Sandbox.objects.alive().exclude(spared).values_list("pk", flat=True):
        tracking.failed(pk)
    unended = Run.objects.filter(public_id=OuterRef("run_id")).exclude(state__in=FINAL)
    tracking.discard(Sandbox.objects.exclude(Exists(unended)))
    return driver.reap(lambda found: found & tracking.alive_ids())
