"""History: does the queue get slower as ended runs pile up? ``python -m benchmarks.history``.

The same backlog is drained on empty tables and behind a million ended runs with their attempts, logs and
value events. There is no peer: what is compared is the platform new and the platform after years.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final

from benchmarks import report
from benchmarks.queue import BULK, measure_drain
from benchmarks.report import Sheet
from benchmarks.stage import Stage
from benchmarks.systems import Aos


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    ended: int
    backlog: int


FULL: Final = Size(ended=1_000_000, backlog=5000)
QUICK: Final = Size(ended=1000, backlog=40)
NEW: Final = "empty"


def measure(stage: Stage, *, size: Size, rounds: int) -> list[Sheet]:
    speed = Sheet(
        title=f"A backlog of {size.backlog:,} runs, drained by one worker (runs a second)",
        baseline=NEW,
        notes=(
            "Rounds on empty tables come first, because a million runs do not go away again.",
            "One round before each of the two is not counted: it meets what the filling left to be written.",
        ),
    )
    cost = Sheet(
        title="CPU per run during submission and drain (milliseconds)",
        baseline=NEW,
        notes=("servers: PostgreSQL and Valkey with all their processes.",),
    )
    filled = f"{size.ended:,} ended runs"
    for name in (NEW, filled):
        system = Aos(name, stage, bulk=BULK)
        if name == filled:
            words = ("-m", "benchmarks.aos.history", "--runs", str(size.ended))
            stage.run(*words, env=system.env)
        unheard = Sheet(title=name, baseline=NEW)
        measure_drain(system, size.backlog, unheard, unheard)
        for _ in range(rounds):
            measure_drain(system, size.backlog, speed, cost)
    return [speed, cost]


def sheets(options: argparse.Namespace) -> list[Sheet]:
    with Stage() as stage:
        stage.migrate()
        return measure(stage, size=QUICK if options.quick else FULL, rounds=options.rounds)


if __name__ == "__main__":
    report.measure(__doc__, sheets)
