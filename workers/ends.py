"""How a worker reports the end of an attempt that did not succeed."""

from __future__ import annotations

from opentelemetry import trace

from apps.runs.errors import LeaseLost
from apps.runs.services import leases
from apps.runs.types import Failure, Started
from workers.insist import insist
from workers.node import Stop, Task


def report(started: Started, task: Task, failure: Failure) -> None:
    """Report exactly one outcome: failure, cancellation or give-back. Raises ``LeaseLost``."""
    insist(lambda: _end(started, task, failure))


def _end(started: Started, task: Task, failure: Failure) -> None:
    if task.stopped == Stop.LOST:
        raise LeaseLost(run_id=started.public_id)
    task.log.flush()
    if task.stopped == Stop.CANCELLED:
        leases.confirm_cancelled(started)
    elif task.stopped == Stop.DRAINED:
        leases.give_back(started)
    else:
        trace.get_current_span().set_status(trace.StatusCode.ERROR, failure.code)
        leases.fail(started, failure)
