"""Who goes next: strict classes, shares among organizations, runs packed into messages.

Pure decisions on what the engine has read; nothing here asks the database. Inside a class the
organization that has been given the least goes first, and inside it the lane that has: deficit round
robin, charged in the seconds a run is expected to take, so that who sends long runs does not get more
of the machine than who sends many short ones.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from typing import Any, Final, Protocol, Self
from uuid import UUID

from apps.runs.types import Priority

# What a run of a version is expected to take that nobody has measured yet.
_UNKNOWN_S: Final = 1.0
# Less than this costs as much to hand out as to do.
_LEAST_S: Final = 0.001
# Runs shorter than this may be sent before a slot is free: they wait for little.
_SHORT_S: Final = 1.0
# And of these many more: a message full of them is done in no time.
_BRIEF_S: Final = 0.02
MOST_IN_A_MESSAGE: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A run near the front of its lane."""

    run_id: int
    lane_id: int
    lane_gate: UUID
    organization_id: UUID
    project_id: UUID
    concurrency_key: str
    priority: int
    seq: int
    waited_s: float
    # Where it is parked.
    gate: UUID | None = None
    version_id: UUID
    # What it requires of its worker, and the gate at which it waits for one.
    requires: Mapping[str, str] | None = None
    home: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is known of a version's runs: how long they take, and whether several fit in a message."""

    mean_s: float = _UNKNOWN_S
    is_light: bool = False

    @property
    def is_short(self) -> bool:
        return self.mean_s < _SHORT_S

    @property
    def is_brief(self) -> bool:
        return self.mean_s <= _BRIEF_S

    def per_message(self, work: timedelta) -> int:
        """How many runs make up about as much work as a message should carry."""
        if not self.is_light:
            return 1
        fit = work.total_seconds() / max(self.mean_s, 1e-6)
        return max(1, min(MOST_IN_A_MESSAGE, int(fit)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many messages the workers can take now, and how many more if they hold short runs (``ahead``), or
    very short ones (``far``)."""

    now: int
    ahead: int = 0
    far: int = 0
    # Of all workers, busy or not.
    slots: int = 0

    @property
    def most(self) -> int:
        return self.now + max(self.ahead, self.far)

    def for_pace(self, pace: Pace) -> int:
        """How many messages there may be, if the next holds runs of this pace."""
        if pace.is_brief:
            return self.most
        return self.now + (self.ahead if pace.is_short else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How strict classes are: who waited so long stands one class higher, and an organization's urgent runs
    go first only as far as they leave the others something (``urgent_left``; nobody else waits: no bound)."""

    ageing_s: float = 0.0
    urgent_left: Mapping[UUID, int] | None = None


PLAIN: Final = Manners()


class Keeper(Protocol):
    """Who knows the limits (``gates.Book``)."""

    def shuts(self, head: Head) -> bool:
        """Whether nothing of the run's lane may start."""

    def stops(self, head: Head) -> bool:
        """Whether this run may not start, although others of its lane may."""

    def hires(self, head: Head) -> bool:
        """Use up a slot for a message that begins with this run; false when no worker for it is free."""

    def take(self, head: Head) -> None:
        """Note that the run is sent."""


class Shares:
    """What each organization, and each lane in it, has been given so far. Forgotten with the leader."""

    def __init__(self) -> None:
        self._given: dict[Any, float] = {}

    def given(self, key: Any) -> float:
        return self._given[key]

    def meet(self, waiting: Iterable[Any]) -> None:
        """Whoever comes new, or comes back, starts level with the others: waiting saves up nothing."""
        known = [self._given[key] for key in waiting if key in self._given]
        floor = min(known, default=0.0)
        for key in waiting:
            self._given[key] = max(self._given.get(key, floor), floor)

    def charge(self, key: Any, seconds: float) -> None:
        self._given[key] += seconds

    def forget(self, keep: Iterable[Any]) -> None:
        """Drop who has nothing waiting, so that memory stays as small as the queue is wide."""
        kept = set(keep)
        self._given = {key: given for key, given in self._given.items() if key in kept}


class Fit(Enum):
    """Whether a run found room in a message."""

    IN = auto()
    # There is none for runs of its kind.
    FULL = auto()
    # There is, but no worker with what it requires is free.
    NO_WORKER = auto()


class Packer:
    """Fills messages: one run each, or as many short runs of one version as make up their work."""

    def __init__(self, room: Room, *, work: timedelta, keeper: Keeper) -> None:
        self.messages: list[list[Head]] = []
        self._room = room
        self._work = work
        self._keeper = keeper
        self._open: dict[tuple[UUID, UUID | None], list[Head]] = {}

    def add(self, head: Head, pace: Pace) -> Fit:
        """Put a run into a message, if there is room for it."""
        fit = pace.per_message(self._work)
        message = self._open.get((head.version_id, head.home))
        if message is None or len(message) >= fit:
            if len(self.messages) >= self._room.for_pace(pace):
                self._keep_a_place(pace)
                return Fit.FULL
            if head.home is not None and not self._keeper.hires(head):
                return Fit.NO_WORKER
            message = self._open[head.version_id, head.home] = []
            self.messages.append(message)
        message.append(head)
        return Fit.IN

    def _keep_a_place(self, pace: Pace) -> None:
        """Who waits for a slot is not overtaken for ever by short runs that need not wait for one."""
        if not pace.is_short:
            self._room = Room(now=self._room.now)


def choose(
    heads: Sequence[Head],
    *,
    room: Room,
    paces: Mapping[UUID, Pace],
    shares: Shares,
    work: timedelta,
    keeper: Keeper,
    manners: Manners = PLAIN,
) -> list[list[Head]]:
    """The runs to send now, as messages, in the order of their right to go."""
    packer = Packer(room, work=work, keeper=keeper)
    by_class = _classes(heads, manners)
    for priority in sorted(by_class):
        _take_turns(by_class[priority], packer=packer, paces=paces, shares=shares, keeper=keeper)
    return packer.messages


def _classes(heads: Sequence[Head], manners: Manners) -> dict[int, list[Head]]:
    by_class: dict[int, list[Head]] = defaultdict(list)
    left = None if manners.urgent_left is None else dict(manners.urgent_left)
    for head in sorted(heads, key=lambda head: head.seq):
        risen = int(head.waited_s // manners.ageing_s) if manners.ageing_s else 0
        standing = max(Priority.URGENT, head.priority - risen)
        if left is not None and head.priority == Priority.URGENT:
            left[head.organization_id] = left.get(head.organization_id, 0) - 1
            if left[head.organization_id] < 0:
                standing = Priority.NORMAL
        by_class[standing].append(head)
    return by_class


def _take_turns(
    heads: Sequence[Head],
    *,
    packer: Packer,
    paces: Mapping[UUID, Pace],
    shares: Shares,
    keeper: Keeper,
) -> None:
    lanes: dict[UUID, dict[int, deque[Head]]] = defaultdict(lambda: defaultdict(deque))
    for head in heads:
        lanes[head.organization_id][head.lane_id].append(head)
    shares.meet(lanes)
    for own in lanes.values():
        shares.meet(own)
    turns = _Turns(shares, lanes)
    inside = {organization: _Turns(shares, own) for organization, own in lanes.items()}
    for organization in turns:
        lane = next(inside[organization])
        waiting = lanes[organization][lane]
        head = waiting.popleft()
        pace = paces.get(head.version_id, Pace())
        if keeper.shuts(head):
            waiting.clear()
        elif keeper.stops(head):
            pass
        elif (fit := packer.add(head, pace)) is Fit.IN:
            keeper.take(head)
            cost = max(pace.mean_s, _LEAST_S)
            shares.charge(organization, cost)
            shares.charge(lane, cost)
        elif fit is Fit.FULL:
            # This kind of run finds no room; behind it may be shorter ones, for the next round.
            waiting.clear()
        if waiting:
            inside[organization].again(lane)
        if inside[organization]:
            turns.again(organization)


class _Turns:
    """Who has been given the least, again and again; of equals, who came first."""

    def __init__(self, shares: Shares, waiting: Iterable[Any]) -> None:
        self._shares = shares
        self._places = {key: place for place, key in enumerate(waiting)}
        self._heap = [(shares.given(key), place, key) for key, place in self._places.items()]
        heapq.heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if not self._heap:
            raise StopIteration
        return heapq.heappop(self._heap)[2]

    def again(self, key: Any) -> None:
        """Whoever had a turn stands in line again, with what was charged for it."""
        heapq.heappush(self._heap, (self._shares.given(key), self._places[key], key))
