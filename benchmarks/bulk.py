"""What a bulk submission costs, against COPY: ``python -m benchmarks.bulk``.

A thousand runs in one request, in parts, and the rows that came of it copied into the same tables by
``COPY`` without row security, permissions, checks, events or an audit entry; and as many single submissions.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from benchmarks import report, stats
from benchmarks.report import Sheet
from benchmarks.stage import Stage

COPIED: Final = "COPY of the same rows"
STATEMENT: Final = "the insert alone"
SERVICE: Final = "the whole call"
REQUEST: Final = "the request"
SINGLE: Final = "single calls"


def sheets(options: Any) -> list[Sheet]:
    runs, count = (100, 3) if options.quick else (1_000, 20)
    sheet = Sheet(
        title=f"{runs:,} runs submitted (milliseconds)",
        baseline=COPIED,
        notes=(
            "Four tables: runs, queue, logs, value events; with their indexes, triggers and references.",
            f"{STATEMENT}: the round trip that writes them; {SERVICE}: with checks, permissions, audit and",
            "idempotency; each commits, and an organization is written to that row security shows alone.",
            f"{SINGLE}: fifty of them, scaled up.",
        ),
    )
    for turn in range(1, options.rounds + 1):
        print(f"bulk, round {turn} of {options.rounds}", file=sys.stderr, flush=True)
        with Stage() as stage:
            stage.migrate()
            env = stage.env | {
                "AOS_LOG_LEVEL": "ERROR",
                "AOS_ALLOWED_HOSTS": "testserver",
                "DJANGO_SETTINGS_MODULE": "aos_project.settings.dev",
            }
            words = ("-m", "benchmarks.aos.inserting", str(runs), str(count))
            for way, taken in json.loads(stage.run(*words, env=env).splitlines()[-1]).items():
                p50, p95 = stats.percentile(taken, 0.5), stats.percentile(taken, 0.95)
                sheet.add(way, p50=p50, p95=p95)
    return [sheet]


def main() -> None:
    options = report.options(__doc__ or "")
    began = report.machine()
    report.publish(sheets(options), began=began, path=options.json)


if __name__ == "__main__":
    main()
