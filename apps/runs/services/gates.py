"""Who must wait although a slot is free: caps, rates and pauses, each kept at a gate.

A run passes the gates of its organization, its lane, its project, its agent and its concurrency key, as far
as somebody has set a limit there. ``Rules`` is what was decided; a ``Book`` is how full the gates are in
one round of the leader, and is used up as the round goes on.

A narrow gate (project, agent, key) may stop some runs of a lane and not others: those it stops are parked
at it, out of the lane, until it lets somebody through again. A wide one (organization, lane) stops whole
lanes, which are then not looked at.

A run that requires something of its worker waits from the start at a gate that all runs of its organization
with the same requirements share: it is open while a worker that meets them has a free slot.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, Final, Self
from uuid import UUID, uuid5

from apps.core.labels import HOME
from apps.core.postgres import direct
from apps.runs.services.fairness import Head
from apps.runs.services.leadership import SHARD, SQL
from apps.runs.services.pools import Pools
from apps.runs.types import LimitScope

_WIDE: Final = (LimitScope.ORGANIZATION, "queue")
# Without a limit of its own, a key lets one run through at a time.
KEY_CAP: Final = 1
# The version of the ids that ``of_key`` makes; other gates are the ids of rows.
OF_KEY: Final = 5


def of_key(organization_id: UUID, key: str) -> UUID:
    """The gate of a concurrency key: each organization has keys of its own."""
    return uuid5(organization_id, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many starts at once, and as many again in each ``seconds``."""

    count: int
    seconds: int

    @property
    def step_s(self) -> float:
        """How long one start takes to be given back."""
        return self.seconds / self.count

    def tokens(self, ahead_s: float) -> int:
        """How many starts there are, when the bucket is full again in so many seconds."""
        # A bucket that was emptied is full again in exactly ``seconds``: rounding must not add a start.
        return math.floor((self.seconds - max(0.0, ahead_s)) / self.step_s + 1e-6)

    def next_in_s(self, ahead_s: float) -> float:
        return max(0.0, ahead_s - (self.seconds - self.step_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What was decided about one gate."""

    cap: int | None = None
    rate: Rate | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All limits as they were at one moment; a claim by any other version of them is refused."""

    version: int = 0
    by_gate: Mapping[UUID, Rule] = field(default_factory=dict)
    wide: tuple[UUID, ...] = ()
    about_agents: bool = False

    @classmethod
    def read(cls) -> Self:
        rows = direct.fetch(SQL["rules"], {"shard": SHARD})
        limits = [row for row in rows if row["gate"] is not None]
        return cls(
            version=rows[0]["version"] or 0,
            by_gate={row["gate"]: rule_of(row) for row in limits},
            wide=tuple(row["gate"] for row in limits if row["scope"] in _WIDE),
            about_agents=any(row["scope"] == LimitScope.AGENT for row in limits),
        )

    def get(self, gate: UUID) -> Rule | None:
        """What holds at a gate; nothing where the limit was taken away."""
        rule = self.by_gate.get(gate)
        if rule is None and gate.version == OF_KEY:
            return Rule(cap=KEY_CAP)
        return rule


def rule_of(row: Mapping[str, Any]) -> Rule:
    rate = None
    if row["rate_count"]:
        rate = Rate(count=row["rate_count"], seconds=row["rate_seconds"])
    return Rule(cap=row["cap"], rate=rate, paused=row["paused"])


@dataclass(slots=True, kw_only=True)
class _State:
    """How a gate stands: the places that are taken, and how far its bucket is from full."""

    rule: Rule | None
    places: set[int]
    ahead_s: float = 0.0
    parked: bool = False

    def free(self, most: int) -> int:
        """How many more it lets through, of ``most``."""
        if self.rule is None:
            return most
        if self.rule.paused:
            return 0
        if self.rule.cap is not None:
            most = min(most, self.rule.cap - len(self.places))
        if self.rule.rate is not None:
            most = min(most, self.rule.rate.tokens(self.ahead_s))
        return max(0, most)

    def take(self) -> dict[str, Any]:
        """Let one through; the place and the token it gets."""
        number = step_s = None
        if self.rule and self.rule.cap is not None:
            number = next(number for number in count(1) if number not in self.places)
            self.places.add(number)
        if self.rule and self.rule.rate is not None:
            step_s = self.rule.rate.step_s
            self.ahead_s = max(0.0, self.ahead_s) + step_s
        return {"number": number, "step_s": step_s}

    @property
    def next_in_s(self) -> float | None:
        """When time alone will open it: only where tokens are what is missing."""
        if self.rule is None or self.rule.rate is None or self.rule.paused or self.free(1):
            return None
        if self.rule.cap is not None and len(self.places) >= self.rule.cap:
            return None
        return self.rule.rate.next_in_s(self.ahead_s)


class Book:
    """How the gates stand in one round, and who passed or was stopped in it."""

    def __init__(
        self,
        rules: Rules,
        *,
        agents: Mapping[UUID, UUID],
        required: dict[UUID, Mapping[str, str]] | None = None,
    ) -> None:
        self._rules = rules
        self._agents = agents
        # What is required at the homes of runs, as far as it is known.
        self._required = {} if required is None else required
        self._homes: list[UUID] = []
        # The workers that messages go to, by their first runs.
        self._hired: dict[int, str] = {}
        self._states: dict[UUID, _State] = {}
        self._passes: dict[int, str] = {}
        # Runs to be parked, and where.
        self.stopped: dict[int, UUID] = {}

    def read(self, gates: Iterable[UUID] = (), *, parked: bool = False) -> None:
        """Ask how these gates stand; with ``parked`` also all at which runs are parked."""
        asked = [gate for gate in set(gates) if gate not in self._states]
        if not (asked or parked):
            return
        for row in direct.fetch(SQL["usage"], {"gates": asked, "parked": parked}):
            if row["gate"].version == HOME:
                self._homes.append(row["gate"])
                continue
            self._states[row["gate"]] = _State(
                rule=self._rules.get(row["gate"]),
                places=set(row["places"]),
                ahead_s=row["ahead_s"] or 0.0,
                parked=row["parked"],
            )

    def closed(self) -> list[UUID]:
        """The organizations and lanes that need not be looked at."""
        known = ((gate, self._states.get(gate)) for gate in self._rules.wide)
        return [gate for gate, state in known if state is not None and not state.free(1)]

    @cached_property
    def _pools(self) -> Pools:
        return Pools.read()

    def open(self, most: int, *, fit: int = 1) -> dict[UUID, int]:
        """The gates at which runs are parked that may pass now, and how many.

        ``fit`` is how many of them one message may carry.
        """
        opened = {
            gate: free
            for gate, state in self._states.items()
            if state.parked and (free := state.free(most))
        }
        self._meet(self._homes)
        for home in self._homes:
            if free := min(most, fit * self._pools.free(self._required.get(home, {}))):
                opened[home] = free
        return opened

    def _meet(self, homes: Sequence[UUID]) -> None:
        """Learn what is required at gates that were not seen before."""
        if unknown := [home for home in homes if home not in self._required]:
            rows = direct.fetch(SQL["required"], {"gates": unknown})
            self._required.update({row["gate"]: row["requires"] for row in rows})

    def next_in_s(self) -> float:
        """When time will open a gate at which runs are parked, or that shuts lanes."""
        waits = [
            wait
            for gate, state in self._states.items()
            if (state.parked or gate in self._rules.wide)
            if (wait := state.next_in_s) is not None
        ]
        return min(waits, default=math.inf)

    def read_for(self, heads: Sequence[Head]) -> None:
        """Ask about all gates that these runs have to pass."""
        self.read(gate for head in heads for gate in self._gates(head))

    def shuts(self, head: Head) -> bool:
        """Whether the run's whole lane has to wait."""
        return any(self._is_shut(gate) for gate in self._wide(head))

    def stops(self, head: Head) -> bool:
        """Whether the run has to wait at a narrow gate; then it is noted where."""
        for gate in self._narrow(head):
            if self._is_shut(gate):
                if head.gate != gate:
                    self.stopped[head.run_id] = gate
                return True
        return False

    def hires(self, head: Head) -> bool:
        """Find a free worker for a message that begins with this run; without one, the run goes home."""
        pool = self._pools.take(head.requires or {})
        if pool is not None:
            self._hired[head.run_id] = pool
        elif head.home is not None and head.gate != head.home:
            self.stopped[head.run_id] = head.home
        return pool is not None

    def pool_for(self, head: Head) -> str | None:
        """The workers that the message goes to which begins with this run; none where any will do."""
        return self._hired.get(head.run_id)

    def take(self, head: Head) -> None:
        """Let a run through all its gates."""
        passes = [
            {"gate": str(gate), "organization": str(head.organization_id), **state.take()}
            for gate in self._gates(head)
            if (state := self._states.get(gate)) is not None
        ]
        if passes:
            self._passes[head.run_id] = json.dumps(passes)

    def passes(self, head: Head) -> str | None:
        """The places and tokens a run was given, as the claim takes them."""
        return self._passes.get(head.run_id)

    def _is_shut(self, gate: UUID) -> bool:
        state = self._states.get(gate)
        return state is not None and not state.free(1)

    def _gates(self, head: Head) -> Iterator[UUID]:
        yield from self._wide(head)
        yield from self._narrow(head)

    def _wide(self, head: Head) -> Iterator[UUID]:
        limited = self._rules.by_gate
        if limited:
            yield from (gate for gate in (head.organization_id, head.lane_gate) if gate in limited)

    def _narrow(self, head: Head) -> Iterator[UUID]:
        limited = self._rules.by_gate
        if limited:
            if head.project_id in limited:
                yield head.project_id
            agent = self._agents.get(head.version_id)
            if agent is not None and agent in limited:
                yield agent
        if head.concurrency_key:
            yield of_key(head.organization_id, head.concurrency_key)
