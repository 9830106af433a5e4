"""The two tasks: take up one run, or a message full of short ones. Their rows decide what happens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from celery import Task
from django.db import close_old_connections

from apps.agents.types import AgentKind
from apps.core import failpoints
from apps.core.failpoints import Place
from apps.core.postgres import direct
from apps.runs.errors import LeaseLost
from apps.runs.services import leases
from apps.runs.types import Lease, Started
from workers import executor, functions, lifespan
from workers.celery import app
from workers.engine.publish import EXECUTE, EXECUTE_GROUP

logger = logging.getLogger(__name__)

_REQUEST: Final = "workers.delivery:Request"


# What Flower shows are the runs, not the messages: ``workers.taskevents`` tells of each.
@app.task(name=EXECUTE, bind=True, send_events=False, Request=_REQUEST)
def execute(self: Task[..., None], run_id: int, token: int) -> None:
    """Work on one leased run.

    The message may be lost, late or doubled: a START that finds its token void returns quietly.
    """
    with _at_work():
        started = lifespan.node().start_run(Lease(run_id=run_id, token=token))
        if started is None:
            logger.info("message is stale", extra={"task": self.request.id})
        elif started.agent_kind == AgentKind.FUNCTION:
            functions.execute([started], node=lifespan.node(), events=lifespan.task_events())
        else:
            _execute_in_sandbox(started)


@app.task(name=EXECUTE_GROUP, send_events=False, Request=_REQUEST)
def execute_group(runs: Sequence[tuple[int, int]]) -> None:
    """Work on several short runs, one after the other."""
    node = lifespan.node()
    with _at_work():
        wanted = [Lease(run_id=run_id, token=token) for run_id, token in runs]
        started = leases.start_many(wanted, worker=node.row)
        functions.execute(started, node=node, events=lifespan.task_events())


@contextmanager
def _at_work() -> Iterator[None]:
    # Connections live as long as their thread; one that broke in between is replaced here.
    close_old_connections()
    failpoints.hit(Place.RECEIVED)
    with lifespan.node().at_work(), direct.line():
        yield


def _execute_in_sandbox(started: Started) -> None:
    try:
        executor.execute(
            started,
            node=lifespan.node(),
            supply=lifespan.supply(),
            events=lifespan.task_events(),
        )
    except LeaseLost:
        logger.warning("lease lost, work dropped", extra={"run": str(started.public_id)})
