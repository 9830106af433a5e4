"""Moving runs from the queue towards workers. Called by the leader only."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection

from apps.agents.types import AgentKind
from apps.core import sql
from apps.core.postgres import direct
from apps.runs.services import fairness
from apps.runs.services.fairness import Head, Manners, Pace, Room, Shares
from apps.runs.services.gates import Book, Rules
from apps.runs.services.leadership import SHARD, SQL, Seat
from apps.runs.types import Dispatch, Message, Priority

logger = logging.getLogger(__name__)

# A leader numbers its messages upwards from its epoch, so no two leaders use one number. The count
# belongs to the process: it may lead twice in one epoch.
_PER_EPOCH: Final = 2**40
_numbers = count()
# Messages of short runs that may wait for each slot, and of very short ones.
_AHEAD: Final = 3
_FAR: Final = 8
# Runs claimed in a round: the first ones should not wait until very many are.
_MOST_A_ROUND: Final = 500
# So many runs of all lanes are looked at where many of them cannot pass, and so many gates in one round at
# which some can.
_DEEPEST: Final = 2000
_GATES: Final = 64


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
    has_parked: bool
    # The version of the limits; none before an engine has led.
    rules: int | None
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
        return Room(
            now=max(0, now),
            ahead=max(0, _AHEAD * self.slots - waiting),
            far=max(0, _FAR * self.slots - waiting),
            slots=self.slots,
        )

    def is_supplied(self, sent: int) -> bool:
        """Each slot finds at least one more message when it is done, with those just sent."""
        return self.taken + sent >= 2 * self.slots > 0


def look() -> View:
    """See what there is to do."""
    ttl_s = settings.AOS_WORKER_TTL.total_seconds()
    (row,) = direct.fetch(SQL["look"], {"ttl_s": ttl_s, "shard": SHARD})
    return View(**row)


class Dispatcher:
    """One leader's way of giving out runs: whom it gave how much, and what it knows of their pace."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self._shares = Shares()
        self._paces: dict[UUID, Pace] = {}
        self._rules: Rules | None = None
        # The agent of each version, as far as a limit over agents made us ask.
        self._agents: dict[UUID, UUID] = {}
        # What is required at the gates where runs wait for certain workers.
        self._required: dict[UUID, Mapping[str, str]] = {}
        # What the last round saw: how many lanes have something to run, runs of which versions, and how
        # deep to look because many could not pass.
        self._lanes = 1
        self._versions: set[UUID] = set()
        self._depth = 0
        self._turn = 0
        # When a gate opens by time.
        self._opens_in_s = math.inf

    def learn(self) -> None:
        """Read what the workers measured."""
        self._paces = {
            row["version_id"]: Pace(
                mean_s=row["mean_s"], is_light=row["kind"] == AgentKind.FUNCTION
            )
            for row in direct.fetch(SQL["paces"], {})
        }

    @property
    def meets_strangers(self) -> bool:
        """The last round saw runs of a version that nobody had measured yet."""
        return not self._versions <= self._paces.keys()

    @property
    def goes_on(self) -> bool:
        """The last round parked runs and had room left: there may be others behind them."""
        return self._depth > 0

    @property
    def opens_in_s(self) -> float:
        """How long from the last round until time opens a gate at which runs wait."""
        return self._opens_in_s

    def claim(
        self, room: Room, *, rules: int | None = None, any_parked: bool = True
    ) -> list[Message]:
        """Lease as many ready runs as there is room for; park those that a limit stops.

        ``rules`` is the version of the limits, where it is known. Nothing is claimed once the seat is
        lost or a limit has changed: the statement checks both.
        """
        self._depth, depth = 0, self._depth
        self._opens_in_s = math.inf
        if not room.most:
            return []
        heeded = self._heed(rules)
        book = Book(heeded, agents=self._agents, required=self._required)
        book.read(heeded.wide, parked=any_parked)
        heads = self._look(room, book, depth=depth)
        self._meet_agents(heads, heeded)
        book.read_for(heads)
        work = settings.AOS_MESSAGE_WORK
        chosen = fairness.choose(
            heads,
            room=room,
            paces=self._paces,
            shares=self._shares,
            work=work,
            keeper=book,
            manners=self._manners(heads, room),
        )
        self._lanes = max(1, len({head.lane_id for head in heads}))
        self._versions = {head.version_id for head in heads}
        self._shares.forget({key for head in heads for key in (head.organization_id, head.lane_id)})
        if self._park(book) and len(chosen) < room.most:
            self._depth = min(_DEEPEST, max(64, 4 * depth))
        self._opens_in_s = book.next_in_s()
        return self._lease(chosen, book)

    def _heed(self, version: int | None) -> Rules:
        """The limits, read again when they are not of this version."""
        if self._rules is None or version is None or self._rules.version != version:
            self._rules = Rules.read()
        return self._rules

    def _look(self, room: Room, book: Book, *, depth: int) -> list[Head]:
        """The fronts of all lanes: twice what is wanted, so that turns can be taken among them."""
        paces = (self._paces.get(version, Pace()) for version in self._versions)
        fit = max((pace.per_message(settings.AOS_MESSAGE_WORK) for pace in paces), default=1)
        wanted = min(room.most * fit, _MOST_A_ROUND)
        # Where lanes abound, one of each is choice enough.
        least = 1 if self._lanes > 4 * wanted else 2
        reach = max(depth // self._lanes, min(wanted, max(least, 2 * wanted // self._lanes)))
        opened = list(book.open(wanted, fit=fit).items())
        if len(opened) > _GATES:
            self._turn = (self._turn + _GATES) % len(opened)
            opened = (opened[self._turn :] + opened[: self._turn])[:_GATES]
        params = {
            "reach": reach,
            "closed": book.closed(),
            "open": [gate for gate, _ in opened],
            "free": [free for _, free in opened],
        }
        return [Head(**row) for row in direct.fetch(SQL["heads"], params)]

    def _manners(self, heads: Sequence[Head], room: Room) -> Manners:
        ageing_s = settings.AOS_AGEING.total_seconds()
        urgent = {head.organization_id for head in heads if head.priority == Priority.URGENT}
        if not urgent or len({head.organization_id for head in heads}) == 1:
            return Manners(ageing_s=ageing_s)
        quota = max(1, room.slots * settings.AOS_URGENT_PERCENT // 100)
        taken = {row["organization_id"]: row["taken"] for row in direct.fetch(SQL["urgent"], {})}
        left = {organization: quota - taken.get(organization, 0) for organization in urgent}
        return Manners(ageing_s=ageing_s, urgent_left=left)

    def _meet_agents(self, heads: Sequence[Head], rules: Rules) -> None:
        unknown = {head.version_id for head in heads} - self._agents.keys()
        if rules.about_agents and unknown:
            rows = direct.fetch(SQL["agents_of"], {"versions": list(unknown)})
            self._agents.update({row["version_id"]: row["agent_id"] for row in rows})

    def _park(self, book: Book) -> int:
        if not book.stopped:
            return 0
        params = {"runs": list(book.stopped), "gates": list(book.stopped.values())}
        return direct.execute(SQL["park"], self.seat.params | params)

    def _lease(self, chosen: Sequence[Sequence[Head]], book: Book) -> list[Message]:
        if not chosen or self._rules is None:
            return []
        pools = [book.pool_for(heads[0]) for heads in chosen]
        numbers = [self.seat.epoch * _PER_EPOCH + next(_numbers) for _ in chosen]
        numbered = [
            (number, pool, head)
            for number, pool, heads in zip(numbers, pools, chosen, strict=True)
            for head in heads
        ]
        params = {
            "rules": self._rules.version,
            "runs": [head.run_id for _, _, head in numbered],
            "messages": [number for number, _, _ in numbered],
            "passes": [book.passes(head) for _, _, head in numbered],
            "pools": [pool for _, pool, _ in numbered],
            "deadline_s": settings.AOS_DISPATCH_DEADLINE.total_seconds(),
        }
        try:
            rows = direct.fetch(SQL["claim"], self.seat.params | params)
        except IntegrityError as error:
            # Somebody else claims beside us and took a place that we saw free.
            logger.warning("nothing claimed, a place was taken", extra={"error": str(error)})
            return []
        leased = {row["run_id"]: row for row in rows}
        return [
            Message(dispatches=tuple(dispatches), pool=pool)
            for pool, heads in zip(pools, chosen, strict=True)
            if (dispatches := [Dispatch(**leased[h.run_id]) for h in heads if h.run_id in leased])
        ]


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


def vacuum() -> None:
    """Free what runs leave behind that have passed through the queue. Holds up nobody, and no table for long.

    Not to be called in a transaction. Does nothing, with a warning of PostgreSQL's, where the database user
    does not own the tables.
    """
    with connection.cursor() as cursor:
        cursor.execute(SQL["vacuum"])
