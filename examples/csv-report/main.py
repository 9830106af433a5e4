"""csv-report: reads any CSV, cleans it, and says what it found, changed and left alone.

Input: ``$AOS_IN/input.json``. Output: ``clean.csv``, ``report.md`` and ``chart.svg`` in ``$AOS_OUT``.
Exit code 2 with one sentence on stderr means that the input cannot be worked on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import aos
import chart
import cleaning
import reading
import report
from columns import Column, totals
from findings import Findings
from words import count

BAD_INPUT = 2
STEPS = (
    "Read the table",
    "Study and clean each column",
    "Leave out repeated rows and write clean.csv",
    "Write the report and draw the chart",
)
# Between the ends of steps, a milestone is worth it only after so much work.
MILESTONE_ROWS = 20_000
MILESTONE_SHARE = 0.05


class Progress:
    """Turns rows worked on into milestones: every step is one pass over all rows."""

    def __init__(self) -> None:
        self._step = 0
        self._told_at = 0.0
        self._told_rows = 0
        self._plan()

    def within(self, rows: int, share: float, doing: str) -> None:
        """Tell of long work while it goes on; ``share`` is how much of this step is done."""
        overall = (self._step + share) / len(STEPS)
        far = overall - self._told_at >= MILESTONE_SHARE
        if far and rows - self._told_rows >= MILESTONE_ROWS:
            aos.milestone(f"{doing} {rows:,} rows", progress=overall, rows=rows)
            self._told_at, self._told_rows = overall, rows

    def done(self, title: str, **facts: object) -> None:
        self._step += 1
        self._told_at, self._told_rows = self._step / len(STEPS), 0
        aos.milestone(title, progress=self._told_at, **facts)
        self._plan()

    def _plan(self) -> None:
        states = ["done"] * self._step + ["doing"] + ["pending"] * len(STEPS)
        aos.todo(dict(zip(STEPS, states, strict=False)))


def run(inbox: Path, outbox: Path) -> None:
    """Do the whole job, or raise ``BadInput``."""
    progress = Progress()
    request = reading.load(inbox)
    table = _read(request, progress)
    repeated_as_found = cleaning.count_repeats(table.rows)
    studied = _clean(table, request, progress)
    outcome = _write(table, studied, outbox / "clean.csv", progress)
    findings = Findings(request, table, studied, outcome, repeated_as_found)
    drawing = chart.draw(findings)
    (outbox / "chart.svg").write_text(drawing.svg, encoding="utf-8")
    (outbox / "report.md").write_text(report.render(findings, drawing), encoding="utf-8")
    progress.done("The report and the chart are ready")
    aos.result(findings.summary, **findings.facts)


def _read(request: reading.Request, progress: Progress) -> reading.Table:
    table = reading.parse(
        request.text,
        advance=lambda rows, line, lines: progress.within(rows, line / lines, "Read"),
    )
    rows, width = len(table.rows), table.width
    aos.log(f"{request.source}: {request.encoding}, {table.delimiter_name}")
    progress.done(
        f"Read {count(rows, 'row')} in {count(width, 'column')}", rows=rows, columns=width
    )
    return table


def _clean(table: reading.Table, request: reading.Request, progress: Progress) -> list[Column]:
    rows, width = len(table.rows), table.width
    studied = cleaning.clean_columns(
        table,
        date_columns=request.date_columns,
        advance=lambda done: progress.within(rows * done // width, done / width, "Cleaned"),
    )
    facts = totals(studied)
    progress.done(
        f"Normalised {count(facts['dates_normalised'], 'date')}, "
        f"unified {count(facts['markers_unified'], 'missing marker')}, "
        f"tidied {count(facts['cells_tidied'], 'cell')}",
        **facts,
    )
    return studied


def _write(
    table: reading.Table, studied: list[Column], path: Path, progress: Progress
) -> cleaning.Outcome:
    rows = len(table.rows)
    outcome = cleaning.write(
        table,
        path,
        date_columns=[index for index, column in enumerate(studied) if column.dates],
        advance=lambda done: progress.within(done, done / rows, "Compared"),
    )
    progress.done(
        f"Left out {count(outcome.repeated, 'repeated row')}, wrote {count(outcome.rows_out, 'row')}",
        duplicates_removed=outcome.repeated,
        rows=outcome.rows_out,
    )
    return outcome


def main() -> int:
    inbox = Path(os.environ.get("AOS_IN", "in"))
    outbox = Path(os.environ.get("AOS_OUT", "out"))
    try:
        run(inbox, outbox)
    except reading.BadInput as problem:
        sys.stderr.write(f"{problem}\n")
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
