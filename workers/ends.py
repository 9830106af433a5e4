"""How a worker reports the end of an attempt that did not succeed, and how it insists on being heard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from opentelemetry import trace

from apps.core.postgres import direct
from apps.runs.errors import LeaseLost
from apps.runs.services import leases
from apps.runs.types import Failure, Started
from workers.node import Stop, Task

_TRY_AGAIN_S: Final = 0.5

Answer = TypeVar("Answer")


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


def insist(act: Callable[[], Answer]) -> Answer:
    """Report an outcome, waiting for a database that is away as long as we may still act.

    Safe to repeat: a report that did arrive took the lease, and the repetition is ``LeaseLost``.
    """
    give_up = time.monotonic() + settings.AOS_SELF_FENCE.total_seconds()
    while True:
        try:
            return act()
        except (OperationalError, InterfaceError):
            connection.close()
            direct.close()
            if time.monotonic() > give_up:
                raise
            time.sleep(_TRY_AGAIN_S)
