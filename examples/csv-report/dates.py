"""Reads dates the way people write them and writes them as ISO 8601.

Day and month are never guessed: ``3/4/98`` stays open until the other dates of its column say which
number comes first. Month names are English.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

# POSIX: 69-99 are 1969-1999, 00-68 are 2000-2068.
CENTURY_PIVOT = 69
YEARS = range(1000, 3000)
LONGEST = 48
COMPACT = "YYYYMMDD"
# How much contrary evidence a column may hold before its open dates are left alone.
CONTRADICTION = 0.01


class Order(StrEnum):
    MONTH_FIRST = "month first"
    DAY_FIRST = "day first"


@dataclass(frozen=True, slots=True)
class Written:
    """A date as somebody wrote it. ``parts`` are year, month, day, as far as they go.

    With ``separator`` set, the order of the last two is open: they stand as they were written.
    """

    parts: tuple[int, ...]
    shape: str
    clock: str = ""
    separator: str = ""

    @property
    def is_whole(self) -> bool:
        return len(self.parts) == 3

    @property
    def is_compact(self) -> bool:
        return self.shape == COMPACT

    @property
    def has_time(self) -> bool:
        return bool(self.clock) and self.clock.strip("T0:.") != ""

    @property
    def readings(self) -> dict[Order, date]:
        """What an open date can mean; one entry when only one order gives a real day."""
        year, first, second = self.parts
        possible = {
            Order.MONTH_FIRST: _day(year, first, second),
            Order.DAY_FIRST: _day(year, second, first),
        }
        return {order: day for order, day in possible.items() if day}

    def shape_in(self, order: Order | None) -> str:
        if not self.separator or order is None:
            return self.shape
        letters = "MD" if order is Order.MONTH_FIRST else "DM"
        return self.shape.replace("#", letters[0], 1).replace("#", letters[1], 1)

    def iso(self, order: Order | None, *, with_time: bool) -> str | None:
        """ISO 8601, or None while the order of day and month is open."""
        clock = self.clock if with_time else ""
        if not self.separator:
            return "-".join(f"{part:02d}" for part in self.parts) + clock
        readings = self.readings
        days = set(readings.values())
        if order in readings:
            days = {readings[order]}
        return days.pop().isoformat() + clock if len(days) == 1 else None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a column's dates say about the order of day and month."""

    month_first: int
    day_first: int

    @property
    def order(self) -> Order | None:
        """The order that open dates follow, or None when nothing or too much speaks for both."""
        total = self.month_first + self.day_first
        if not total or min(self.month_first, self.day_first) > CONTRADICTION * total:
            return None
        return Order.MONTH_FIRST if self.month_first > self.day_first else Order.DAY_FIRST


def weigh(written: Iterable[Written]) -> dict[str, Evidence]:
    """Collect the evidence for each separator: a column may mix 31.12.1999 and 12/31/1999."""
    votes: dict[str, Counter[Order]] = {}
    for one in written:
        if one.separator:
            tally = votes.setdefault(one.separator, Counter())
            if len(one.readings) == 1:
                tally.update(one.readings.keys())
    return {
        separator: Evidence(tally[Order.MONTH_FIRST], tally[Order.DAY_FIRST])
        for separator, tally in votes.items()
    }


_MONTHS = [
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
]
_MONTH_NUMBERS = {"sept": 9}
for _number, _name in enumerate(_MONTHS, start=1):
    _MONTH_NUMBERS[_name] = _MONTH_NUMBERS[_name[:3]] = _number

_CLOCK = (
    r"(?:(?:T|,?\s+)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<seconds>\d\d)(?P<fraction>\.\d{1,9})?)?"
    r"(?:\s*(?P<half>[AP])\.?M\.?)?(?:\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?)?"
)
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
_NAMED = r"(?P<name>[a-z]{3,9})\.?"
_YEAR = r"(?P<year>\d{4}|\d\d)"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_DIGIT = re.compile(r"[0-9]")
_ISO = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T.+)?)?)?", re.ASCII)
# What a value looks like, for the report (``#`` is a number that may be day or month), and how to read it.
_PATTERNS = [
    (shape, re.compile(pattern, re.ASCII | re.IGNORECASE))
    for shape, pattern in (
        (
            "YYYY{mark}M{mark}D",
            r"(?P<year>\d{4})(?P<mark>[-/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})" + _CLOCK,
        ),
        (COMPACT, r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)"),
        (
            "#{mark}#{mark}{year}",
            r"(?P<first>\d{1,2})(?P<mark>[-/])(?P<second>\d{1,2})(?P=mark)" + _YEAR + _CLOCK,
        ),
        (
            "#{mark}#{mark}YYYY",
            r"(?P<first>\d{1,2})(?P<mark>\.)(?P<second>\d{1,2})\.(?P<year>\d{4})" + _CLOCK,
        ),
        # Two digits each, or version numbers such as 1.10.12 would become dates.
        (
            "#{mark}#{mark}YY",
            r"(?P<first>\d\d)(?P<mark>\.)(?P<second>\d\d)\.(?P<year>\d\d)" + _CLOCK,
        ),
        ("D Mon {year}", _WEEKDAY + _DAY + r"[-\s/.]*" + _NAMED + r"[-\s/,.]*" + _YEAR + _CLOCK),
        ("Mon D {year}", _WEEKDAY + _NAMED + r"[-\s]*" + _DAY + r"(?:,\s*|\s+|-)" + _YEAR + _CLOCK),
        ("YYYY Mon D", r"(?P<year>\d{4})[-\s/]+" + _NAMED + r"[-\s/]+" + _DAY + _CLOCK),
        ("Mon YYYY", _NAMED + r"[-\s/,]+(?P<year>\d{4})"),
        ("YYYY{mark}M", r"(?P<year>\d{4})(?P<mark>[-/])(?P<month>\d{1,2})"),
        ("M{mark}YYYY", r"(?P<month>\d{1,2})(?P<mark>[-/])(?P<year>\d{4})"),
        ("YYYY", r"(?P<year>\d{4})"),
    )
]


def is_iso(text: str) -> bool:
    """Whether the text is a date as this module writes it: a day, a month or a year."""
    match = _ISO.fullmatch(text)
    return match is not None and _exists(tuple(int(part) for part in match.groups() if part))


def day_of(text: str) -> date | None:
    """The day that ISO 8601 text names, if it names a whole one."""
    match = _ISO.fullmatch(text)
    return _day(*map(int, match.groups())) if match and match[3] else None


def read(text: str) -> Written | None:
    """Read one value, or None when it is no date that exists."""
    if len(text) > LONGEST or not _DIGIT.search(text):
        return None
    for shape, pattern in _PATTERNS:
        if (match := pattern.fullmatch(text)) and (written := _written(shape, match)):
            return written
    return None


def _written(shape: str, match: re.Match[str]) -> Written | None:
    found = {name: value for name, value in match.groupdict().items() if value is not None}
    shape = shape.format(mark=found.get("mark"), year="Y" * len(found["year"]))
    # Interned, because a file has a handful of shapes and perhaps half a million dates.
    shape = sys.intern(shape + (" h:mm" if "hour" in found else ""))
    clock = _clock(found)
    year = _year(found["year"])
    if clock is None or year not in YEARS:
        return None
    if "first" in found:
        numbers = (year, int(found["first"]), int(found["second"]))
        written = Written(numbers, shape, clock, separator=found["mark"])
        return written if written.readings else None
    parts = (year, *_month_and_day(found))
    return Written(parts, shape, clock) if _exists(parts) else None


def _year(digits: str) -> int:
    if len(digits) == 4:
        return int(digits)
    return int(digits) + (1900 if int(digits) >= CENTURY_PIVOT else 2000)


def _month_and_day(found: dict[str, str]) -> Iterator[int]:
    """Whatever was written of month and day; a word that is no month counts as month 0."""
    if "name" in found:
        yield _MONTH_NUMBERS.get(found["name"].lower(), 0)
    if "month" in found:
        yield int(found["month"])
    if "day" in found:
        yield int(found["day"])


def _exists(parts: tuple[int, ...]) -> bool:
    year, month, day = (*parts, 1, 1)[:3]
    return _day(year, month, day) is not None


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _clock(found: dict[str, str]) -> str | None:
    """The time as ISO 8601 with its leading T, an empty string without a time, None if impossible."""
    if "hour" not in found:
        return ""
    hour = int(found["hour"])
    if half := found.get("half", "").upper():
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "P" else 0)
    if hour > 23 or int(found["minute"]) > 59 or int(found.get("seconds", 0)) > 59:
        return None
    seconds = f":{found['seconds']}{found.get('fraction', '')}" if "seconds" in found else ""
    return f"T{hour:02d}:{found['minute']}{seconds}{_zone(found.get('zone', ''))}"


def _zone(text: str) -> str:
    if text[:1] in {"+", "-"}:
        digits = text[1:].replace(":", "").ljust(4, "0")
        return f"{text[0]}{digits[:2]}:{digits[2:]}"
    return "Z" if text else ""
