"""What permissions cost a list: ``python -m benchmarks.lists``.

The first page of 200,000 runs, in an organization with 10,000 bindings, for readers of several kinds
and without any filter; all as a web request asks, behind row security.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from benchmarks import report, stats
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
    for turn in range(1, options.rounds + 1):
        print(f"lists, round {turn} of {options.rounds}", file=sys.stderr, flush=True)
        with Stage() as stage:
            stage.migrate()
            env = stage.env | {
                "AOS_LOG_LEVEL": "ERROR",
                "DJANGO_SETTINGS_MODULE": "aos_project.settings.dev",
            }
            words = ("-m", "benchmarks.aos.listing", str(rows), str(bindings), str(count))
            for reader, taken in json.loads(stage.run(*words, env=env).splitlines()[-1]).items():
                p50, p95 = stats.percentile(taken, 0.5), stats.percentile(taken, 0.95)
                sheet.add(reader, p50=p50, p95=p95)
    return [sheet]


def main() -> None:
    options = report.options(__doc__ or "")
    began = report.machine()
    report.publish(sheets(options), began=began, path=options.json)


if __name__ == "__main__":
    main()
