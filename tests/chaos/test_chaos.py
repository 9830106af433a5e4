"""Everything is struck at random, again and again: no run is lost, doubled or stuck.

The short form is part of ``make test``, the full one of ``make proof``.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from apps.runs.models import Attempt, Run
from tests.chaos import reckoning
from tests.chaos.arena import Arena
from tests.chaos.reckoning import PATIENCE_S, Watch
from tests.chaos.workload import Client, client

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@dataclass(frozen=True, kw_only=True)
class Storm:
    runs: int
    kills: int
    stalls: int
    postgres: int
    redis: int
    flushes: int
    # Seconds from one strike to the next, at most.
    pace_s: float
    # No more are submitted while so many are open.
    crowd: int = 400

    def strikes(self, dice: random.Random) -> list[str]:
        counts = {
            "kill": self.kills,
            "stall": self.stalls,
            "postgres": self.postgres,
            "redis": self.redis - self.flushes,
            "flush": self.flushes,
        }
        strikes = [strike for strike, count in counts.items() for _ in range(count)]
        dice.shuffle(strikes)
        return strikes


SHORT = Storm(runs=300, kills=8, stalls=2, postgres=1, redis=1, flushes=1, pace_s=2.0)
FULL = Storm(runs=10_000, kills=200, stalls=20, postgres=5, redis=5, flushes=2, pace_s=3.0)


def test_a_short_storm_loses_doubles_and_sticks_nothing(arena):
    _weather(SHORT, arena)


@pytest.mark.proof
def test_a_storm_of_230_strikes_over_10000_runs_loses_doubles_and_sticks_nothing(arena):
    _weather(FULL, arena)


def _weather(storm: Storm, arena: Arena) -> None:
    ours = client(arena.dice)
    arena.man(engines=2, workers=3)
    watch = Watch()
    began = time.monotonic()
    strikes = storm.strikes(arena.dice)
    for strike, share in zip(strikes, _shares(storm.runs, len(strikes)), strict=True):
        _submit(ours, share, storm, arena, watch)
        _strike(strike, arena)
        _go_on(arena, watch, seconds=arena.dice.uniform(0.2, storm.pace_s))
    took = time.monotonic() - began
    _settle(arena, watch)

    assert reckoning.lost(ours.accepted) == set()
    assert reckoning.broken() == {}
    assert watch.longest_s < PATIENCE_S
    _tell(storm, ours, watch, took)


def _shares(total: int, parts: int) -> Iterator[int]:
    for number in range(parts):
        yield total * (number + 1) // parts - total * number // parts


def _submit(ours: Client, share: int, storm: Storm, arena: Arena, watch: Watch) -> None:
    while watch.look() > storm.crowd:
        _go_on(arena, watch, seconds=0.5)
    ours.submit(share)


def _strike(strike: str, arena: Arena) -> None:
    if strike == "postgres":
        arena.restart_postgres()
    elif strike in {"redis", "flush"}:
        arena.kill_redis(flush=strike == "flush")
    else:
        up = [post for post in arena.posts if post.is_up]
        # Somebody is always left; who stalled and who starts is not struck twice.
        post = arena.dice.choice(up or arena.posts)
        (arena.stall if strike == "stall" else arena.kill)(post)


def _go_on(arena: Arena, watch: Watch, *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while True:
        arena.keep()
        watch.look()
        if time.monotonic() > until:
            return
        time.sleep(0.2)


def _settle(arena: Arena, watch: Watch) -> None:
    """Until all runs are over and told of, or one has not moved for too long."""
    while watch.look() or "nothing waits to be told" in reckoning.broken():
        assert watch.longest_s < PATIENCE_S, "a run is stuck"
        _go_on(arena, watch, seconds=0.5)


def _tell(storm: Storm, ours: Client, watch: Watch, took: float) -> None:
    """For proofs.md."""
    print(
        f"{Run.objects.count()} runs ({len(ours.accepted)} accepted), {storm}, {took:.0f} s; longest "
        f"without a move {watch.longest_s:.1f} s; "
        f"states {dict(Counter(Run.objects.values_list('state', flat=True)))}; "
        f"attempts {dict(Counter(Attempt.objects.values_list('outcome', flat=True)))}"
    )
