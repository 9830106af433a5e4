"""What permissions cost a list: ``python -m benchmarks.lists``.

The first page of 200,000 runs, in an organization with 10,000 bindings, for readers of several kinds
and without any filter; all as a web request asks, behind row security.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks import report
from benchmarks.report import Sheet
from benchmarks.stage import Stage

UNFILTERED: Final = "no filter"


def sheets(options: Any) -> list[Sheet]:
    rows, bindings, count = (2_000, 500, 20) if options.quick else (200_000, 10_000, 200)
    sheet = Sheet(
        title="First page of the runs (milliseconds)",
        baseline=UNFILTERED,
        notes=(f"{rows:,} runs, {bindings:,} bindings of 2,000 people and 200 departments.",),
    )
    for _ in report.rounds("lists", options.rounds):
        with Stage() as stage:
            stage.migrate()
            sheet.add_times(stage.figures("benchmarks.aos.listing", rows, bindings, count))
    return [sheet]


if __name__ == "__main__":
    report.measure(__doc__, sheets)
