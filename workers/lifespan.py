"""What happens around a worker's consumer: joining the fleet, draining, leaving."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

import redis
from celery.signals import (
    celeryd_after_setup,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from apps.core import telemetry
from apps.core.errors import AosError
from apps.core.labels import pool_of
from apps.sandboxes import reports
from apps.sandboxes.services import tracking
from workers import garbage, offers, pools, reaper, sandbox
from workers.node import Node
from workers.sandbox.base import SandboxDriver
from workers.supply import Supply
from workers.taskevents import TaskEvents

logger = logging.getLogger(__name__)

_REAP_EVERY_S: Final = 30.0
_REPORT_EVERY_S: Final = 30.0


class _Process:
    """The parts this worker process has exactly one of."""

    node: Node | None = None
    driver: SandboxDriver | None = None
    supply: Supply | None = None
    events: TaskEvents | None = None
    # Celery's event loop, where the broker's transport has one.
    hub: Any = None


def node() -> Node:
    if _Process.node is None:
        raise RuntimeError("No worker is running in this process.")
    return _Process.node


def driver() -> SandboxDriver:
    if _Process.driver is None:
        _Process.driver = sandbox.driver_from_settings()
    return _Process.driver


def supply() -> Supply:
    if _Process.supply is None:
        row = node().row
        holder = tracking.Holder(worker=row.name, host=row.host, incarnation=row.incarnation)
        _Process.supply = Supply(driver(), holder=holder, profiles=sandbox.profiles_from_settings)
    return _Process.supply


def task_events() -> TaskEvents | None:
    """Where short runs are told to Flower; ``None`` when the worker was started without task events."""
    return _Process.events


def look_for_more() -> None:
    """Have Celery's loop turn, so that it asks for the next message.

    It asks when a slot is free and the loop turns. A task's events make it turn; a task without any
    would leave it asleep for up to a second.
    """
    if _Process.hub is not None:
        _Process.hub.call_soon(_turn)


def _turn() -> None:
    """Nothing: to be woken is enough."""


@worker_init.connect
def prepare(**_: Any) -> None:
    telemetry.setup("worker")
    _bound_connections()


@celeryd_after_setup.connect
def listen(instance: Any, **_: Any) -> None:
    """Besides what is for any worker, take what requires something that this one has."""
    own = pool_of(settings.AOS_WORKER_LABELS, version=settings.AOS_WORKER_VERSION)
    instance.app.amqp.queues.select_add(pools.queue(instance.app, own))


def _bound_connections() -> None:
    """Should this process stall inside a transaction, PostgreSQL ends it before the runs go to others.

    Its locks would keep them from being taken for as long as its host keeps the connection open. And
    should the network swallow everything, a connection is given up instead of waited for.
    """
    options = connection.settings_dict["OPTIONS"]
    limit_ms = int(settings.AOS_SELF_FENCE.total_seconds() * 1000)
    bound = f"-c idle_in_transaction_session_timeout={limit_ms}"
    options["options"] = f"{options.get('options', '')} {bound}".strip()
    options |= {"tcp_user_timeout": limit_ms, "keepalives_idle": 10, "keepalives_interval": 5}


@worker_ready.connect
def join(sender: Any, **_: Any) -> None:
    """Join the fleet once messages can be taken: from here on the engine counts on our slots."""
    _Process.node = Node(sender.hostname, slots=settings.AOS_WORKER_SLOTS)
    _Process.node.start()
    _Process.hub = sender.hub
    if sender.event_dispatcher and not sender.event_dispatcher.groups:
        _Process.events = TaskEvents(sender.app, sender.hostname)
    try:
        supply().start()
    except AosError as error:
        logger.warning("no sandbox is kept warm", extra={"error": str(error)})
    garbage.search_seldom()
    logger.info("worker joined", extra={"node": sender.hostname})
    threading.Thread(target=_reap_for_ever, name="reaper", daemon=True).start()
    threading.Thread(
        target=_report_for_ever, args=[sender.hostname], name="doctor", daemon=True
    ).start()


def _report_for_ever(worker: str) -> None:
    """Say how sandboxes fare on this host and what they can be made of; the web process asks."""
    while True:
        try:
            found = driver().check(image=settings.AOS_SANDBOX_IMAGE)
            reports.leave(
                worker,
                [
                    reports.Remark(is_error=one.is_error, message=one.message, hint=one.hint)
                    for one in found
                ],
            )
            offers.tell(node().row.host, driver=driver(), profiles=sandbox.profiles_from_settings())
        except (AosError, redis.RedisError, DatabaseError) as error:
            connection.close()
            logger.warning("the doctor will look again", extra={"error": str(error)})
        time.sleep(_REPORT_EVERY_S)


def _reap_for_ever() -> None:
    """At once, because a predecessor may have been killed, and then every half minute."""
    while True:
        try:
            if reaped := reaper.sweep(driver()):
                logger.warning("orphaned sandboxes destroyed", extra={"count": reaped})
        except (AosError, DatabaseError) as error:
            connection.close()
            logger.warning("reaper will try again", extra={"error": str(error)})
        time.sleep(_REAP_EVERY_S)


@worker_shutting_down.connect
def drain(**_: Any) -> None:
    """Runs in a signal handler's thread: Celery itself waits for the runs that are still busy."""
    if _Process.supply is not None:
        _Process.supply.stop()
    if _Process.node is not None:
        threading.Thread(
            target=_Process.node.drain, args=[settings.AOS_DRAIN.total_seconds()], daemon=True
        ).start()


@worker_shutdown.connect
def leave(**_: Any) -> None:
    # As old as the process and not used since: the database may have ended it long ago.
    connection.close()
    if _Process.supply is not None:
        try:
            _Process.supply.close()
        except (AosError, DatabaseError) as error:
            connection.close()
            logger.warning("what is warm is left to the reaper", extra={"error": str(error)})
    if _Process.node is not None:
        _Process.node.leave()
