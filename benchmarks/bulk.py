"""What a bulk submission costs, against COPY: ``python -m benchmarks.bulk``.

A thousand runs in one request, in parts, and the rows that came of it copied into the same tables by
``COPY`` without row security, permissions, checks, events or an audit entry; and as many single submissions.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks import report
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
    for _ in report.rounds("bulk", options.rounds):
        with Stage() as stage:
            stage.migrate()
            words = ("benchmarks.aos.inserting", runs, count)
            sheet.add_times(stage.figures(*words, AOS_ALLOWED_HOSTS="testserver"))
    return [sheet]


if __name__ == "__main__":
    report.measure(__doc__, sheets)
