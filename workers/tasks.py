"""The two tasks: take up one run, or a message full of short ones. Their rows decide what happens."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from celery import Task
from django.db import close_old_connections

from apps.agents.types import AgentKind
from apps.core.postgres import direct
from apps.runs.errors import LeaseLost
from apps.runs.services import leases
from apps.runs.types import Lease, Started
from workers import executor, functions, lifespan
from workers.celery import app
from workers.engine.publish import EXECUTE, EXECUTE_GROUP

logger = logging.getLogger(__name__)


@app.task(name=EXECUTE, bind=True)
def execute(self: Task[..., str], run_id: int, token: int) -> str:
    """Work on one leased run.

    The message may be lost, late or doubled: a START that finds its token void returns quietly.
    """
    with direct.line():
        started = _take_up([Lease(run_id=run_id, token=token)])
        if not started:
            logger.info("message is stale", extra={"task": self.request.id})
            return "stale"
        return _work_on(started[0])


# Not an event of its own in Flower: each of its runs is one (see ``workers.functions``).
@app.task(name=EXECUTE_GROUP, send_events=False)
def execute_group(runs: Sequence[tuple[int, int]]) -> None:
    """Work on several short runs, one after the other."""
    with direct.line():
        started = _take_up([Lease(run_id=run_id, token=token) for run_id, token in runs])
        functions.execute(started, node=lifespan.node(), events=lifespan.task_events())
    lifespan.look_for_more()


def _take_up(wanted: Sequence[Lease]) -> list[Started]:
    # Connections live as long as their thread; one that broke in between is replaced here.
    close_old_connections()
    return leases.start_many(wanted, worker=lifespan.node().row)


def _work_on(started: Started) -> str:
    node = lifespan.node()
    if started.agent_kind == AgentKind.FUNCTION:
        functions.execute([started], node=node)
        return "done"
    try:
        executor.execute(started, node=node, supply=lifespan.supply())
    except LeaseLost:
        logger.warning("lease lost, work dropped", extra={"run": str(started.public_id)})
        return "lease lost"
    return "done"
