"""Moving runs from the queue towards workers. Called by the leader only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final
from uuid import UUID

from django.conf import settings

from apps.agents.types import AgentKind
from apps.core import sql
from apps.core.postgres import direct
from apps.runs.services import fairness
from apps.runs.services.fairness import Head, Pace, Room, Shares
from apps.runs.services.leadership import SQL, Seat
from apps.runs.types import Dispatch, Message

# A leader numbers its messages upwards from its epoch, so no two leaders use one number. The count
# belongs to the process: it may lead twice in one epoch.
_PER_EPOCH: Final = 2**40
_numbers = count()
# Messages of short runs that may wait for each slot.
_AHEAD: Final = 3


def enqueue(
    *, run_id: int, organization_id: object, queue: str, priority: int, dispatches: int = 0
) -> None:
    """Put a run at the end of its lane, making the lane if it is the first."""
    lane_id = find_lane(organization_id=organization_id, queue=queue, priority=priority)
    sql.execute(SQL["make_ready"], {"run_id": run_id, "lane_id": lane_id, "dispatches": dispatches})


def find_lane(*, organization_id: object, queue: str, priority: int) -> int:
    params = {"organization_id": organization_id, "queue": queue, "priority": priority}
    # A lane made by a transaction that commits between the two halves of the statement is seen by
    # neither; the second try sees it.
    rows = sql.fetch(SQL["find_lane"], params) or sql.fetch(SQL["find_lane"], params)
    return int(rows[0]["id"])


def promote(*, limit: int = 1000) -> int:
    """Make runs ready whose time has come; return how many."""
    return direct.execute(SQL["promote"], {"limit": limit})


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What there is for a leader to do."""

    slots: int
    taken: int
    has_ready: bool
    has_due: bool
    has_news: bool
    has_unsealed: bool

    @property
    def room(self) -> Room:
        """How many more messages the workers can take.

        Short runs may lie ready ahead of them, some messages for each slot: who is done with one
        finds the next, and the engine need not be back in time.
        """
        now = self.slots - self.taken
        waiting = max(0, self.taken - self.slots)
        return Room(now=max(0, now), ahead=max(0, _AHEAD * self.slots - waiting))


def look() -> View:
    """See what there is to do."""
    ttl_s = settings.AOS_WORKER_TTL.total_seconds()
    (row,) = direct.fetch(SQL["look"], {"ttl_s": ttl_s})
    return View(**row)


class Dispatcher:
    """One leader's way of giving out runs: whom it gave how much, and what it knows of their pace."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self._shares = Shares()
        self._paces: dict[UUID, Pace] = {}
        # What the last round saw: how many lanes have something to run, and how many of their runs
        # one message may carry.
        self._lanes = 1
        self._fit = 1

    def learn(self) -> None:
        """Read what the workers measured."""
        self._paces = {
            row["version_id"]: Pace(
                mean_s=row["mean_s"], is_light=row["kind"] == AgentKind.FUNCTION
            )
            for row in direct.fetch(SQL["paces"], {})
        }

    def claim(self, room: Room) -> list[Message]:
        """Lease as many ready runs as there is room for.

        Nothing is claimed once the seat is lost: the statement checks it.
        """
        if not room.now + room.ahead:
            return []
        heads = self._look((room.now + room.ahead) * self._fit)
        work = settings.AOS_MESSAGE_WORK
        chosen = fairness.choose(
            heads, room=room, paces=self._paces, shares=self._shares, work=work
        )
        self._lanes = max(1, len({head.lane_id for head in heads}))
        fits = (self._paces.get(head.version_id, Pace()).per_message(work) for head in heads)
        self._fit = max(fits, default=1)
        self._shares.forget({key for head in heads for key in (head.organization_id, head.lane_id)})
        return self._lease(chosen)

    def _look(self, wanted: int) -> list[Head]:
        """The fronts of all lanes: twice what is wanted, so that turns can be taken among them."""
        reach = min(wanted, max(2, 2 * wanted // self._lanes))
        return [Head(**row) for row in direct.fetch(SQL["heads"], {"reach": reach})]

    def _lease(self, chosen: Sequence[Sequence[Head]]) -> list[Message]:
        if not chosen:
            return []
        numbers = [self.seat.epoch * _PER_EPOCH + next(_numbers) for _ in chosen]
        numbered = [
            (number, head) for number, heads in zip(numbers, chosen, strict=True) for head in heads
        ]
        rows = direct.fetch(
            SQL["claim"],
            self.seat.params
            | {
                "runs": [head.run_id for _, head in numbered],
                "messages": [number for number, _ in numbered],
                "deadline_s": settings.AOS_DISPATCH_DEADLINE.total_seconds(),
            },
        )
        leased = {row["run_id"]: row for row in rows}
        return [
            Message(dispatches=tuple(dispatches))
            for heads in chosen
            if (dispatches := [_dispatch(h, leased[h.run_id]) for h in heads if h.run_id in leased])
        ]


def _dispatch(head: Head, row: dict[str, int]) -> Dispatch:
    return Dispatch(
        run_id=head.run_id,
        public_id=head.public_id,
        token=row["token"],
        seq=row["seq"],
        name=head.name,
        trace=head.trace,
    )


def claim(seat: Seat, *, slots: int) -> list[Dispatch]:
    """One round with no memory of earlier ones: lease up to ``slots`` ready runs."""
    messages = Dispatcher(seat).claim(Room(now=slots))
    return [dispatch for message in messages for dispatch in message.dispatches]


def hand_back(dispatches: Sequence[Dispatch]) -> int:
    """Return claims whose message could not be sent. Costs the runs no attempt."""
    tokens = [dispatch.token for dispatch in dispatches]
    return sql.execute(SQL["hand_back"], {"tokens": tokens, "overdue": False})


def hand_back_overdue() -> int:
    """Return claims that no worker took up in time: the message or the worker was lost."""
    return sql.execute(SQL["hand_back"], {"tokens": [], "overdue": True})
