"""The platform's worker with nothing to do: ``celery -A benchmarks.aos.worker worker ...``.

Everything but the work is the real thing: message, START, FINISH, heartbeat, task events. What a run
does in between is replaced in this process only, in one of two ways (``AOS_BENCH_BODY``):

``nothing``  START, then FINISH: the bare engine, to be compared with an empty Celery task.
``sandbox``  the whole executor, with a driver whose sandboxes do not exist: what our own
             bookkeeping around a sandbox costs.
"""

from __future__ import annotations

from workers.celery import app  # sets Django up, which everything below needs

# isort: split

from aos_project import env
from apps.runs.models import RunLease
from apps.runs.services import leases
from apps.runs.types import Started
from benchmarks import stamps
from benchmarks.aos.nothing import NothingDriver
from workers import executor, sandbox
from workers.node import Node
from workers.supply import Supply

__all__ = ["app"]

_TELLS_CLAIM = env.flag("AOS_BENCH_CLAIM", default=False)
_execute = executor.execute


def _do_nothing(started: Started, **_parts: object) -> None:
    key = str(started.public_id)
    stamps.note(stamps.START, key)
    if _TELLS_CLAIM:
        _tell_claim(started, key)
    leases.succeed(started, result={"summary": "There was nothing to do."})
    stamps.note(stamps.FINISH, key)


def _in_no_sandbox(started: Started, *, node: Node, supply: Supply) -> None:
    key = str(started.public_id)
    stamps.note(stamps.START, key)
    _execute(started, node=node, supply=supply)
    stamps.note(stamps.FINISH, key)


def _tell_claim(started: Started, key: str) -> None:
    at = RunLease.objects.values_list("dispatched_at", flat=True).get(run=started.lease.run_id)
    stamps.note(stamps.CLAIM, key, at.timestamp())


sandbox.driver_from_settings = NothingDriver
executor.execute = (
    _in_no_sandbox if env.text("AOS_BENCH_BODY", default="nothing") == "sandbox" else _do_nothing
)
