"""History: does the queue get slower as ended runs pile up? ``python -m benchmarks.history``.

The same backlog is drained on empty tables and behind a million ended runs with their attempts, logs and
value events. There is no peer: what is compared is the platform new and the platform after years.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import report, stamps
from benchmarks.queue import BULK
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
    sheet = Sheet(
        title=f"A backlog of {size.backlog:,} runs, drained by one worker (runs a second)",
        baseline=NEW,
        notes=("Rounds on empty tables come first, because a million runs do not go away again.",),
    )
    system = Aos("aos", stage, bulk=BULK)
    for _ in range(rounds):
        _drain(system, size, sheet, NEW)
    stage.run("-m", "benchmarks.aos.history", "--runs", str(size.ended), env=system.env)
    for _ in range(rounds):
        _drain(system, size, sheet, f"{size.ended:,} ended runs")
    return [sheet]


def _drain(system: Aos, size: Size, sheet: Sheet, name: str) -> None:
    system.begin()
    try:
        submitted = system.submit(size.backlog)
        system.start_worker()
        ends = sorted(system.await_finish(size.backlog)[stamps.FINISH].values())
    finally:
        system.end()
    sheet.add(name, drain=(len(ends) - 1) / (ends[-1] - ends[0]), submit=submitted.rate)


def sheets(options: argparse.Namespace) -> list[Sheet]:
    with Stage() as stage:
        stage.migrate()
        return measure(stage, size=QUICK if options.quick else FULL, rounds=options.rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    options = report.options(__doc__ or "", arguments)
    began = report.machine()
    report.publish(sheets(options), began=began, path=options.json)


if __name__ == "__main__":
    main()
