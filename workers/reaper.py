"""Destroys sandboxes of this host whose attempt nobody is executing any more."""

from __future__ import annotations

from django.db.models import Exists, OuterRef

from apps.runs.models import Run
from apps.runs.types import LeaseState
from apps.sandboxes.models import Sandbox
from apps.sandboxes.services import tracking
from workers.sandbox.base import SandboxDriver


def sweep(driver: SandboxDriver) -> int:
    """Write off the records of dead attempts, then destroy what no record spares; return how many.

    Decided by leases, never by age: a long run is not an orphan, and a fresh one may be.
    """
    executing = Run.objects.filter(
        public_id=OuterRef("run_id"), attempts=OuterRef("attempt"), lease__state=LeaseState.RUNNING
    )
    for sandbox in Sandbox.objects.alive().filter(~Exists(executing)):
        tracking.failed(sandbox)
    return driver.reap(lambda found: found & tracking.alive_ids())
