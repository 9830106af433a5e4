"""The engine: stand by until the seat is free, then lead until it is lost.

A leader promotes due runs, gives ready ones to workers, moves value events to their log, and takes
back what nobody looks after. It is woken by the doorbell, and polls anyway: polling is the
guarantee, the bell is only speed.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from datetime import datetime
from typing import Final

from celery import Celery
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, transaction

from apps.core import doorbell, failpoints
from apps.core.failpoints import Place
from apps.core.postgres import direct
from apps.events.services import chain, checkpoints, relay
from apps.runs.services import (
    bulk,
    dependencies,
    dispatch,
    firing,
    fleet,
    leadership,
    orphans,
    recovery,
    retention,
    withdrawal,
)
from apps.runs.services.dispatch import Dispatcher, View
from apps.runs.services.leadership import Seat, SeatLost
from workers import garbage
from workers.engine.courier import Courier
from workers.engine.janitor import Janitor
from workers.engine.publish import BrokerAway, Publisher
from workers.engine.vacuum import Vacuum

logger = logging.getLogger(__name__)

STAND_BY_S: Final = 0.5
# Polling pace: close while there was something to do in the last second, relaxed after.
BUSY_S: Final = 0.05
IDLE_S: Final = 1.0
# A round has a price however little there is to do: under load it does so much at once.
ROUND_S: Final = 0.005
# While messages lie ready for all slots, nobody waits for the next round.
SUPPLIED_ROUND_S: Final = 0.015
SWEEP_S: Final = 1.0
RELAY_BATCH: Final = 1000
# Under load a relay does for more events at once as well.
RELAY_S: Final = 0.05
# How often the leader reads what the workers measured.
LESSON_S: Final = 0.25
# The same while runs wait that nobody has measured yet.
FIRST_LESSON_S: Final = 0.02
BULK_S: Final = 0.5
HOUSEKEEPING_S: Final = 3600.0
CHECKPOINT_S: Final = 60.0
CHECKPOINT_ENTRIES: Final = 1000


class Engine:
    """One engine process. ``run`` returns after ``stop``."""

    def __init__(self, app: Celery) -> None:
        # The suffix tells two engines apart that the same pid and host name could not.
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self._publisher = Publisher(app)
        self._courier = Courier()
        self._janitor = Janitor()
        self._vacuum = Vacuum()
        self._stopping = threading.Event()
        self._rung = threading.Event()
        self._seat: Seat | None = None
        self._dispatcher: Dispatcher | None = None
        # The last round did as much as a round may: there is likely more.
        self._goes_on = False
        self._is_supplied = False
        # Runs that wait for a rate start when it lets them, not at the next look.
        self._opens_in_s = IDLE_S
        # Monotonic moments; 0 means never.
        self._healthy_since = 0.0
        self._last_work = 0.0
        self._next_round = 0.0
        self._next_renewal = 0.0
        self._next_sweep = 0.0
        self._next_relay = 0.0
        self._next_lesson = 0.0
        self._next_bulk = 0.0
        self._next_housekeeping = 0.0
        self._next_checkpoint = 0.0
        # Up to when ended bindings were seen; ``None`` when another engine may have led before.
        self._looked_until: datetime | None = None
        # Sealed since the last checkpoint. One, so that a new leader signs what it found.
        self._unsigned = 1

    def stop(self) -> None:
        self._stopping.set()
        self._rung.set()

    def run(self) -> None:
        threading.Thread(target=self._listen, name="bell", daemon=True).start()
        garbage.search_seldom()
        logger.info("engine stands by", extra={"engine": self._name})
        with direct.line():
            while not self._stopping.is_set():
                try:
                    self._turn()
                except SeatLost as error:
                    self._step_down(str(error))
                except DatabaseError as error:
                    self._database_is_away(error)
            self._leave()

    def _listen(self) -> None:
        for rung in doorbell.rings(doorbell.ENGINE):
            if rung:
                self._rung.set()
            if self._stopping.is_set():
                return

    def _turn(self) -> None:
        self._renew()
        if self._seat is None:
            self._stopping.wait(STAND_BY_S)
            return
        self._stopping.wait(max(0.0, self._next_round - time.monotonic()))
        began = time.monotonic()
        if self._lead(self._seat):
            self._last_work = time.monotonic()
        self._next_round = began + (SUPPLIED_ROUND_S if self._is_supplied else ROUND_S)
        if self._goes_on:
            return
        busy = time.monotonic() - self._last_work < IDLE_S
        until_renewal = max(0.0, self._next_renewal - time.monotonic())
        self._rung.wait(min(BUSY_S if busy else IDLE_S, until_renewal, self._opens_in_s))
        self._rung.clear()

    def _renew(self) -> None:
        """Take or keep the seat; a third of its life before it ends."""
        now = time.monotonic()
        if self._seat is not None and now < self._next_renewal:
            return
        self._prepare_connection()
        seat = leadership.take(self._name)
        self._next_renewal = now + settings.AOS_LEADER_TTL.total_seconds() / 3
        self._healthy_since = self._healthy_since or now
        if seat is None:
            self._step_down("another engine holds the seat")
        elif self._seat is None or seat.epoch != self._seat.epoch:
            self._healthy_since = now
            self._looked_until = None
            logger.info("engine leads", extra={"engine": self._name, "epoch": seat.epoch})
        self._seat = seat
        self._courier.work(leading=seat is not None)
        self._janitor.work(seat)

    def _prepare_connection(self) -> None:
        """Bound what a stalled leader can hold: its open transaction must not block a successor."""
        if connection.connection is not None:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "SET idle_in_transaction_session_timeout = '2s'; SET lock_timeout = '2s'"
            )

    def _lead(self, seat: Seat) -> bool:
        """One round of work; true when there was any."""
        view = dispatch.look()
        promoted = dispatch.promote() if view.has_due else 0
        if promoted:
            failpoints.hit(Place.PROMOTED)
        may_claim = bool(view.has_ready or view.has_parked or promoted)
        claimed = self._dispatch(seat, view) if may_claim else 0
        self._is_supplied = view.is_supplied(claimed)
        dispatcher = self._dispatcher_of(seat) if may_claim else None
        pushes_on = dispatcher is not None and dispatcher.goes_on
        self._opens_in_s = dispatcher.opens_in_s if dispatcher else IDLE_S
        moved = self._relay(seat) if view.has_news and self._may_relay() else 0
        sealed = self._seal(seat, any_waiting=view.has_unsealed)
        reclaimed = self._sweep(seat)
        treated = self._advance_bulk(seat)
        self._goes_on = bool(claimed or pushes_on or moved >= RELAY_BATCH or treated)
        return bool(promoted or claimed or moved or sealed or reclaimed or treated)

    def _dispatch(self, seat: Seat, view: View) -> int:
        messages = self._dispatcher_of(seat).claim(
            view.room, rules=view.rules, any_parked=view.has_parked
        )
        if not messages:
            return 0
        self._vacuum.note(sum(len(message.dispatches) for message in messages))
        failpoints.hit(Place.CLAIMED)
        try:
            self._publisher.publish(messages)
            failpoints.hit(Place.PUBLISHED)
        except BrokerAway as error:
            dispatch.hand_back([each for message in messages for each in message.dispatches])
            logger.warning("runs wait for the broker", extra={"error": str(error)})
            self._stopping.wait(STAND_BY_S)
        return len(messages)

    def _dispatcher_of(self, seat: Seat) -> Dispatcher:
        if self._dispatcher is None or self._dispatcher.seat != seat:
            self._dispatcher = Dispatcher(seat)
        hurry = LESSON_S - FIRST_LESSON_S if self._dispatcher.meets_strangers else 0
        if time.monotonic() >= self._next_lesson - hurry:
            self._next_lesson = time.monotonic() + LESSON_S
            self._dispatcher.learn()
        return self._dispatcher

    def _advance_bulk(self, seat: Seat) -> int:
        """The next batch of what people want done to many runs: one a round, without a pause."""
        if time.monotonic() < self._next_bulk:
            return 0
        treated = bulk.advance(seat)
        self._next_bulk = 0.0 if treated else time.monotonic() + BULK_S
        return treated

    def _may_relay(self) -> bool:
        """Events wait a little only while rounds follow each other without a pause."""
        return not self._is_supplied or time.monotonic() >= self._next_relay

    def _relay(self, seat: Seat) -> int:
        self._next_relay = time.monotonic() + RELAY_S
        with direct.atomic():
            leadership.require(seat)
            moved = relay.move(RELAY_BATCH)
            failpoints.hit(Place.RELAYING)
            return moved

    def _seal(self, seat: Seat, *, any_waiting: bool) -> int:
        """Extend the audit chains; sign their ends every minute or thousand entries, if they grew."""
        sealed = 0
        # Proving the seat writes: not for an empty inbox, many times a second.
        if any_waiting:
            with transaction.atomic():
                leadership.require(seat)
                sealed = chain.seal()
        self._unsigned += sealed
        if self._unsigned and (
            time.monotonic() >= self._next_checkpoint or self._unsigned >= CHECKPOINT_ENTRIES
        ):
            self._next_checkpoint = time.monotonic() + CHECKPOINT_S
            self._sign(seat)
        return sealed

    def _sign(self, seat: Seat) -> None:
        try:
            with transaction.atomic():
                leadership.require(seat)
                checkpoints.sign()
        except OSError as error:
            # A key that cannot be read must not stop the runs; it is tried again in a minute.
            logger.error("audit checkpoint not signed", extra={"error": str(error)})  # noqa: TRY400
            self._unsigned = 1
        else:
            self._unsigned = 0
            self._courier.ring()

    def _sweep(self, seat: Seat) -> int:
        now = time.monotonic()
        if now < self._next_sweep:
            return 0
        self._next_sweep = now + SWEEP_S
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_S
            fleet.forget_old()
            retention.keep(seat)
        silence_counts = now - self._healthy_since >= settings.AOS_WORKER_TTL.total_seconds()
        returned = dispatch.hand_back_overdue()
        expired = recovery.expire_queued(seat) + recovery.expire_overdue(seat)
        fired = firing.fire(seat) + dependencies.end_decided(seat) + orphans.end(seat)
        look = withdrawal.sweep(seat, since=self._looked_until)
        self._looked_until = look.until
        done = returned + expired + fired + look.cancelled
        return done + recovery.reclaim(seat, trust_silence=silence_counts)

    def _step_down(self, why: str) -> None:
        if self._seat is not None:
            logger.warning("engine stands by again", extra={"engine": self._name, "why": why})
        self._seat = None
        self._courier.work(leading=False)
        self._janitor.work(None)

    def _database_is_away(self, error: DatabaseError) -> None:
        if self._healthy_since:
            logger.warning("engine lost the database, tries again", extra={"error": str(error)})
        self._healthy_since = 0.0
        self._seat = None
        self._courier.work(leading=False)
        self._janitor.work(None)
        connection.close()
        direct.close()
        self._stopping.wait(STAND_BY_S)

    def _leave(self) -> None:
        self._publisher.close()
        self._courier.stop()
        self._janitor.stop()
        self._vacuum.stop()
        if self._seat is not None:
            try:
                leadership.leave(self._seat)
            except DatabaseError as error:
                logger.warning("seat not given up, it expires", extra={"error": str(error)})
        logger.info("engine stopped", extra={"engine": self._name})
