"""The report that a person reads: what was found, what was changed, and what was left alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from chart import Drawing
from columns import Column, DateFacts, Kind
from dates import Evidence, Order, is_iso
from findings import Findings
from words import count, short

SHOWN_VALUES = 5
CELL_LENGTH = 40

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>&~$])")


def render(findings: Findings, drawing: Drawing) -> str:
    """The whole report in Markdown; everything that came with the data is escaped."""
    sections = [
        [f"# {_plain(findings.request.title or 'CSV report')}", "", findings.summary],
        ["## In short", "", *_in_short(findings)],
        [f"![{_plain(drawing.title)}](chart.svg)", "", drawing.description],
        ["## Columns", "", *_columns(findings)],
        ["## What was changed", "", *_changes(findings)],
        ["## What was left as it is", "", *_left(findings)],
        ["## How it was read", "", *_reading(findings)],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _in_short(findings: Findings) -> Iterator[str]:
    facts, outcome = findings.facts, findings.outcome
    dated = [column.dates for column in findings.columns if column.dates]
    iso_before = sum(facts.iso - facts.changed for facts in dated)
    iso_after = sum(
        number for found in outcome.dates.values() for text, number in found.items() if is_iso(text)
    )
    yield from _table(
        ("", "Before", "After"),
        [
            ("Rows", f"{outcome.rows_in:,}", f"{outcome.rows_out:,}"),
            ("Rows that repeat another", f"{findings.repeated_as_found:,}", "0"),
            ("Rows without any value", f"{outcome.empty_rows:,}", "0"),
            ("Missing values", f"{facts['missing_before']:,}", f"{facts['missing_after']:,}"),
            ("… of them written as a word or sign", f"{facts['markers_unified']:,}", "0"),
            ("Dates in ISO 8601", f"{iso_before:,}", f"{iso_after:,}"),
            ("Cells with stray spaces or line breaks", f"{facts['cells_tidied']:,}", "0"),
        ],
    )
    yield ""
    yield "Before counts the rows of the file as it came, after those of `clean.csv`."
    if extra := outcome.repeated - findings.repeated_as_found:
        yield f"{count(extra, 'further row')} turned out to repeat another once cleaned."


def _columns(findings: Findings) -> Iterator[str]:
    yield from _table(
        ("Column", "Type", "Missing before", "Missing after", "Distinct", "Smallest", "Largest"),
        [
            (
                _code(column.name),
                column.kind,
                _part(column.missing, findings.outcome.rows_in),
                _part(missing, findings.outcome.rows_out),
                f"{column.distinct:,}",
                _code(column.smallest),
                _code(column.largest),
            )
            for column, missing in zip(findings.columns, findings.outcome.missing, strict=True)
        ],
    )


def _changes(findings: Findings) -> Iterator[str]:
    lines = [line for column in findings.columns for line in _column_changes(column)]
    outcome = findings.outcome
    if outcome.empty_rows:
        lines.append(f"- {count(outcome.empty_rows, 'row')} without any value left out.")
    if outcome.repeated:
        lines.append(f"- {count(outcome.repeated, 'repeated row')} left out; the first one stays.")
        lines += [
            f"  - row {number:,} repeats row {earlier:,}" for number, earlier in outcome.repeats
        ]
        if more := outcome.repeated - len(outcome.repeats):
            lines.append(f"  - and {more:,} more")
    yield from lines or ["Nothing: the file was clean."]


def _column_changes(column: Column) -> Iterator[str]:
    name = _code(column.name)
    if column.tidied:
        yield f"- {name}: {count(column.tidied, 'cell')} trimmed, or given plain line breaks."
    if column.markers:
        yield f"- {name}: {_values(column.markers)} made empty."
    if column.dates and column.dates.changed:
        yield from _date_changes(name, column.dates)


def _date_changes(name: str, facts: DateFacts) -> Iterator[str]:
    yield f"- {name}: {count(facts.changed, 'date')} written as ISO 8601."
    yield f"  - found as {_values(facts.shapes)}"
    for separator, evidence in sorted(facts.evidence.items()):
        yield f"  - {_verdict(separator, evidence)}"
    if facts.midnight_dropped:
        yield f"  - {count(facts.midnight_dropped, 'time')} dropped: all were midnight"
    if any("YY" in shape and "YYYY" not in shape for shape in facts.shapes):
        yield "  - years of two digits: 69 to 99 read as 1969 to 1999, 00 to 68 as 2000 to 2068"
    examples = ", ".join(f"{_code(before)} → {_code(after)}" for before, after in facts.examples)
    yield f"  - for example {examples}"


def _verdict(separator: str, evidence: Evidence) -> str:
    month, day = evidence.month_first, evidence.day_first
    against = min(month, day)
    kind = f"dates with {_code(separator)}"
    if evidence.order is None:
        why = (
            "nothing shows"
            if not month + day
            else f"{month:,} speak for one and {day:,} for the other"
        )
        return f"{kind}: {why} whether day or month comes first"
    first = "month" if evidence.order is Order.MONTH_FIRST else "day"
    proof = count(max(month, day), "distinct date")
    doubt = f"; {against:,} can only be the other way round" if against else ""
    return f"{kind}: the {first} comes first, because {proof} can be read no other way{doubt}"


def _left(findings: Findings) -> Iterator[str]:
    lines = [line for column in findings.columns for line in _column_left(column)]
    yield from lines or ["Nothing was in doubt."]


def _column_left(column: Column) -> Iterator[str]:
    name = _code(column.name)
    if column.kept_markers:
        yield (
            f"- {name}: {_values(column.kept_markers)}. It could mean a missing value, "
            "but in this column it can just as well be an answer."
        )
    if column.dates and column.dates.open:
        yield (
            f"- {name}: {_values(column.dates.open)}. Day or month first? The column does not say."
        )
    unreadable = column.misfits - (column.dates.open if column.dates else Counter())
    if unreadable:
        noun = "date" if column.kind in {Kind.DATE, Kind.MOMENT} else column.kind
        yield f"- {name}: {_values(unreadable)}. Not readable as {noun}."


def _reading(findings: Findings) -> Iterator[str]:
    table = findings.table
    yield f"- Source: {_plain(findings.request.source)}, {findings.request.encoding}."
    yield f"- Delimiter: {table.delimiter_name}. `clean.csv` is UTF-8 with commas."
    for note in table.notes:
        yield f"- {_plain(note, length=200)}"


def _values(values: Counter[str]) -> str:
    ranked = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(
        f"{_code(value)} ({count(number, 'time')})" for value, number in ranked[:SHOWN_VALUES]
    )
    more = len(ranked) - SHOWN_VALUES
    return f"{shown} and {more:,} more" if more > 0 else shown


def _part(number: int, total: int) -> str:
    return f"{number:,} ({number / total:.1%})" if number else "0"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _plain(text: str, *, length: int = CELL_LENGTH) -> str:
    """Foreign text as text: one line, of bounded length, with nothing Markdown or HTML acts on."""
    return _MARKDOWN.sub(r"\\\1", short(text, length))


def _code(text: str) -> str:
    """Foreign text as a code span; a backtick in it could end the span, so it is replaced."""
    shown = short(text, CELL_LENGTH).replace("`", "'").replace("|", "¦")
    return f"`{shown}`" if shown else ""
