"""The one task: take up a run by its id and token. What happens next is decided by its row."""

from __future__ import annotations

import logging

from celery import Task
from django.db import close_old_connections

from apps.runs.errors import LeaseLost
from apps.runs.services import leases
from workers import executor, lifespan
from workers.celery import app
from workers.engine.publish import EXECUTE

logger = logging.getLogger(__name__)


@app.task(name=EXECUTE, bind=True)
def execute(self: Task[..., str], run_id: int, token: int) -> str:
    """Work on one leased run.

    The message may be lost, late or doubled: a START that finds its token void returns quietly.
    """
    # Connections live as long as their thread; one that broke in between is replaced here.
    close_old_connections()
    node = lifespan.node()
    started = leases.start(run_id=run_id, token=token, worker=node.row)
    if started is None:
        logger.info("message is stale", extra={"task": self.request.id})
        return "stale"
    try:
        executor.execute(started, node=node, supply=lifespan.supply())
    except LeaseLost:
        logger.warning("lease lost, work dropped", extra={"run": str(started.public_id)})
        return "lease lost"
    return "done"
