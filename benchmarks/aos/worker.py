"""The platform's worker as the Procfile starts it, telling when runs begin and end.

``celery -A benchmarks.aos.worker worker ...``. Message, START, FINISH, heartbeat and task events are the
real thing. A run is of one of two kinds: a function that does nothing, to be compared with an empty
Celery task (``benchmarks.aos.functions``), or a script that goes through the whole executor, with a
driver whose sandboxes do not exist: what our own bookkeeping around a sandbox costs.
"""

from __future__ import annotations

from workers.celery import app  # sets Django up, which everything below needs

# isort: split

from collections.abc import Sequence

from aos_project import env
from apps.agents.types import AgentKind
from apps.runs.models import RunLease
from apps.runs.services import leases
from apps.runs.types import Lease, Report, Started
from benchmarks import stamps
from benchmarks.aos.nothing import NothingDriver
from workers import sandbox

__all__ = ["app"]

_TELLS_CLAIM = env.flag("AOS_BENCH_CLAIM", default=False)
_keys: dict[int, str] = {}
_start, _finish = leases.start_many, leases.finish


def _start_and_tell(wanted: Sequence[Lease], **who: object) -> list[Started]:
    started = _start(wanted, **who)  # type: ignore[arg-type]
    for each in started:
        key = _keys[each.lease.run_id] = str(each.public_id)
        if each.agent_kind == AgentKind.SCRIPT:
            stamps.note(stamps.START, key)
    return started


def _finish_and_tell(reports: Sequence[Report]) -> frozenset[Lease]:
    if _TELLS_CLAIM:
        # Now, when the run has begun and its lease is still there: the question takes longer than a run.
        held = RunLease.objects.filter(run__in=[report.lease.run_id for report in reports])
        for run_id, at in held.values_list("run_id", "dispatched_at"):
            stamps.note(stamps.CLAIM, _keys[run_id], at.timestamp())
    ended = _finish(reports)
    for lease in ended:
        stamps.note(stamps.FINISH, _keys.pop(lease.run_id))
    return ended


leases.start_many = _start_and_tell
leases.finish = _finish_and_tell
sandbox.driver_from_settings = NothingDriver
