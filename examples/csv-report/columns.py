"""What a column holds and what becomes of each of its values.

Every decision is taken on the column's distinct values, not on its rows: dropping duplicate rows
then changes no decision, and a file that was cleaned once stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import dates
from reading import tidied

# Spellings that mean "no value" wherever they stand.
SURE_MARKERS = {"", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "(null)", "<NA>", "\\N"}
# Signs are missing values, except where the column speaks in signs (+ and -).
SIGN_MARKERS = {"-", "--", "---", "?", "??", "."}
# Words can be answers ("damage: none"), so they count only in columns of numbers or dates.
WORD_MARKERS = {
    *("na", "nan", "null", "none", "nil", "missing", "unknown", "undefined", "unspecified", "tbd"),
    *("n.a.", "not available", "not applicable", "no data"),
}
MOSTLY = 0.9
# Dates are told by their looks, so that a column with many unreadable ones is still recognised.
ENOUGH_DATES = 0.6
NEARLY_ALL = 0.95
FEWEST_COMPACT_DATES = 3
SHOWN_EXAMPLES = 4

_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_CODE = re.compile(r"[A-Z]{2}")
_SIGNS = re.compile(r"\W+")


class Kind(StrEnum):
    EMPTY = "empty"
    INTEGER = "integer"
    NUMBER = "number"
    DATE = "date"
    MOMENT = "date and time"
    TEXT = "text"


@dataclass(slots=True)
class Column:
    """One column, studied. Counts are of cells; ``becomes`` lists only the values that change."""

    name: str
    kind: Kind = Kind.EMPTY
    becomes: dict[str, str] = field(default_factory=dict)
    empty: int = 0
    markers: Counter[str] = field(default_factory=Counter)
    kept_markers: Counter[str] = field(default_factory=Counter)
    tidied: int = 0
    misfits: Counter[str] = field(default_factory=Counter)
    distinct: int = 0
    smallest: str = ""
    largest: str = ""
    dates: DateFacts | None = None

    @property
    def missing(self) -> int:
        """Cells without a value in the file as it came."""
        return self.empty + self.markers.total()


@dataclass(slots=True)
class DateFacts:
    shapes: Counter[str] = field(default_factory=Counter)
    evidence: dict[str, dates.Evidence] = field(default_factory=dict)
    changed: int = 0
    iso: int = 0
    open: Counter[str] = field(default_factory=Counter)
    midnight_dropped: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


def study(name: str, cells: Iterable[str], *, as_dates: bool | None = None) -> Column:
    """Profile one column and decide what its values become; ``as_dates`` overrules the looks."""
    raw = Counter(cells)
    tidy = {value: clean for value in raw if (clean := tidied(value)) != value}
    counts = _merged(raw, tidy)
    column = Column(name)
    column.empty = counts[""]
    column.tidied = sum(raw[value] for value, clean in tidy.items() if clean)

    values = sorted(value for value in counts if not _may_be_marker(value))
    written = {value: one for value in values if (one := dates.read(value))}
    column.kind = _kind(values, written, as_dates=as_dates)
    becomes = dict.fromkeys(_missing(counts, values, column.kind), "")
    column.markers = Counter({value: counts[value] for value in becomes if value})
    column.kept_markers = Counter(
        {value: counts[value] for value in counts if _may_be_marker(value) and value not in becomes}
    )
    if column.kind in {Kind.DATE, Kind.MOMENT}:
        becomes |= _settle_dates(column, counts, written)
    _describe(column, counts, becomes)
    column.becomes = {value: final for value, final in becomes.items() if final != value}
    column.becomes |= {value: becomes.get(clean, clean) for value, clean in tidy.items()}
    return column


def _merged(raw: Counter[str], tidy: Mapping[str, str]) -> Counter[str]:
    if not tidy:
        return raw
    counts: Counter[str] = Counter()
    for value, number in raw.items():
        counts[tidy.get(value, value)] += number
    return counts


def totals(columns: Iterable[Column]) -> dict[str, int]:
    """What happened to the cells of all columns together."""
    columns = list(columns)
    dated = [column.dates for column in columns if column.dates]
    return {
        "cells_tidied": sum(column.tidied for column in columns),
        "markers_unified": sum(column.markers.total() for column in columns),
        "dates_normalised": sum(facts.changed for facts in dated),
        "dates_left_open": sum(facts.open.total() for facts in dated),
        "missing_before": sum(column.missing for column in columns),
    }


def _may_be_marker(value: str) -> bool:
    return value in SURE_MARKERS or value in SIGN_MARKERS or value.casefold() in WORD_MARKERS


def _missing(counts: Mapping[str, int], values: list[str], kind: Kind) -> list[str]:
    speaks_in_signs = any(_SIGNS.fullmatch(value) for value in values)
    speaks_in_codes = _share(values, _CODE) >= MOSTLY

    def is_missing(value: str) -> bool:
        if value in SURE_MARKERS or kind not in {Kind.TEXT, Kind.EMPTY}:
            return True
        if value == "NA":
            return not speaks_in_codes
        return value in SIGN_MARKERS and not speaks_in_signs

    return [value for value in counts if _may_be_marker(value) and is_missing(value)]


def _share(values: list[str], pattern: re.Pattern[str]) -> float:
    return sum(bool(pattern.fullmatch(value)) for value in values) / len(values) if values else 0


def _kind(
    values: list[str], written: Mapping[str, dates.Written], *, as_dates: bool | None
) -> Kind:
    if not values:
        return Kind.EMPTY
    if as_dates or (as_dates is None and _look_like_dates(values, written)):
        has_time = any(one.has_time for one in written.values())
        return Kind.MOMENT if has_time else Kind.DATE
    if _share(values, _NUMBER) < MOSTLY:
        return Kind.TEXT
    numbers = [value for value in values if _NUMBER.fullmatch(value)]
    return Kind.INTEGER if _share(numbers, _INTEGER) == 1 else Kind.NUMBER


def _look_like_dates(values: list[str], written: Mapping[str, dates.Written]) -> bool:
    whole = [one for one in written.values() if one.is_whole]
    compact = sum(one.is_compact for one in whole)
    # Eight digits are also an account number, unless nearly all of them are days.
    if compact and (len(whole) < NEARLY_ALL * len(values) or len(values) < FEWEST_COMPACT_DATES):
        return len(whole) - compact >= ENOUGH_DATES * len(values)
    return len(whole) >= ENOUGH_DATES * len(values)


def _settle_dates(
    column: Column, counts: Mapping[str, int], written: Mapping[str, dates.Written]
) -> dict[str, str]:
    facts = column.dates = DateFacts(evidence=dates.weigh(written.values()))
    with_time = column.kind is Kind.MOMENT
    settled: dict[str, str] = {}
    for value, one in written.items():
        evidence = facts.evidence.get(one.separator)
        order = evidence.order if evidence else None
        final = one.iso(order, with_time=with_time)
        facts.shapes[one.shape_in(order)] += counts[value]
        if final is None:
            facts.open[value] = counts[value]
            continue
        settled[value] = final
        facts.iso += counts[value]
        if final != value:
            facts.changed += counts[value]
            facts.midnight_dropped += counts[value] if one.clock and not with_time else 0
    changed = [value for value, final in settled.items() if final != value]
    spread = changed[:: max(1, len(changed) // SHOWN_EXAMPLES)][:SHOWN_EXAMPLES]
    facts.examples = [(value, settled[value]) for value in spread]
    return settled


def _describe(column: Column, counts: Mapping[str, int], becomes: Mapping[str, str]) -> None:
    """Fill in the distinct values, the range, and what does not fit the kind."""
    finals = {becomes.get(value, value) for value in counts} - {""}
    column.distinct = len(finals)
    if column.kind in {Kind.INTEGER, Kind.NUMBER}:
        fitting = [value for value in finals if _NUMBER.fullmatch(value)]
        ordered = sorted(fitting, key=lambda value: (float(value), value))
    elif column.dates is not None:
        fitting = [value for value, final in becomes.items() if final]
        ordered = sorted({becomes[value] for value in fitting})
    else:
        column.kind = Kind.TEXT if finals else Kind.EMPTY
        return
    if ordered:
        column.smallest, column.largest = ordered[0], ordered[-1]
    fits = {*fitting, *(value for value, final in becomes.items() if not final)}
    column.misfits = Counter({value: counts[value] for value in counts if value not in fits})
