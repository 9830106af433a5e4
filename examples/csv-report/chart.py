"""Draws the one picture that says most: rows over time, or else missing values by column.

Plain SVG with presentation attributes only: no script, no style sheet, nothing loaded from elsewhere,
so that it shows the same in a browser, in a mail and under a strict content security policy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from xml.sax.saxutils import escape, quoteattr

from dates import day_of
from findings import Findings
from words import count, short

WIDTH, HEIGHT = 900, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 104, 64
MAX_BARS = 120
MAX_LABELS = 12
MAX_COLUMNS = 14
ENOUGH_DATED_ROWS = 0.5
FEWEST_DATED_ROWS = 12

INK, MUTED, GRID, PAPER = "#17181c", "#5b606e", "#e7e7ec", "#ffffff"
BAR, PEAK, TRACK = "#8b82ee", "#4338ca", "#f0effc"
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

Point = tuple[float, float]

_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Drawing:
    title: str
    description: str
    svg: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A length of time: which step a day falls into, and what a step is called."""

    name: str
    step: Callable[[date], int]
    label: Callable[[int], str]
    # Steps at which an axis may carry a label, from dense to sparse.
    rhythm: tuple[int, ...]


def _month_label(step: int) -> str:
    year, month = divmod(step, 12)
    return f"{date(year, month + 1, 1):%b} {year}"


def _day_label(step: int) -> str:
    day = date.fromordinal(step)
    return f"{day.day} {day:%b} {day.year}"


UNITS = (
    Unit("day", date.toordinal, _day_label, (1, 2, 7, 14)),
    Unit("month", lambda day: day.year * 12 + day.month - 1, _month_label, (1, 3, 12)),
    Unit("year", lambda day: day.year, str, (1, 2, 5, 10, 20)),
    Unit("decade", lambda day: day.year // 10, lambda step: f"{step}0s", (1, 2, 5, 10)),
    Unit("century", lambda day: day.year // 100, lambda step: f"{step}00s", (1, 2, 5)),
)


def draw(findings: Findings) -> Drawing:
    timeline = _timeline(findings)
    if timeline is None:
        return _missing_by_column(findings)
    return _rows_over_time(findings, *timeline)


def _timeline(findings: Findings) -> tuple[str, Counter[date]] | None:
    """The column with the most whole days and those days, if they cover enough rows."""
    dated = {index: _whole_days(found) for index, found in findings.outcome.dates.items()}
    if not dated:
        return None
    best = max(dated, key=lambda index: (dated[index].total(), -index))
    days = dated[best]
    fewest = max(FEWEST_DATED_ROWS, ENOUGH_DATED_ROWS * findings.outcome.rows_out)
    enough = days.total() >= fewest and len(days) > 2
    return (findings.columns[best].name, days) if enough else None


def _whole_days(found: Counter[str]) -> Counter[date]:
    days: Counter[date] = Counter()
    for text, number in found.items():
        if day := day_of(text):
            days[day] += number
    return days


def _rows_over_time(findings: Findings, name: str, days: Counter[date]) -> Drawing:
    first, last = min(days), max(days)
    unit = next(u for u in UNITS if u.step(last) - u.step(first) < MAX_BARS)
    steps: Counter[int] = Counter()
    for day, number in days.items():
        steps[unit.step(day)] += number
    start, end = unit.step(first), unit.step(last)
    bars = [steps[step] for step in range(start, end + 1)]
    peak = start + bars.index(max(bars))

    title = f"Rows per {unit.name} of {short(name, 40)}"
    if findings.request.title:
        title = short(findings.request.title, 60)
    undated = findings.outcome.rows_out - days.total()
    subtitle = (
        f"{count(days.total(), 'row')} by {unit.name} of {short(name, 40)}, {first} to {last}"
    )
    if undated:
        subtitle += f"; {undated:,} without a full date are not shown"
    description = (
        f"Bar chart of {count(days.total(), 'row')} by {unit.name} of {short(name, 40)}, "
        f"from {unit.label(start)} to {unit.label(end)}. "
        f"The most are in {unit.label(peak)}: {max(bars):,}. {_missing_note(findings)}"
    )
    body = "\n".join(_time_bars(bars, unit=unit, start=start))
    return _drawing(title, subtitle, description, body, footer=_missing_note(findings))


def _time_bars(bars: list[int], *, unit: Unit, start: int) -> Iterator[str]:
    ground, room = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    width = (WIDTH - LEFT - RIGHT) / len(bars)
    top, lines = _scale(max(bars))
    for value in lines:
        y = ground - room * value / top
        yield _line((LEFT, y), (WIDTH - RIGHT, y), GRID if value else MUTED)
        yield _text(LEFT - 10, y + 4, f"{value:,}", anchor="end")
    gap = min(width * 0.18, 6)
    peak = bars.index(max(bars))
    for index, value in enumerate(bars):
        x, height = LEFT + index * width, room * value / top
        if value:
            label = f"{unit.label(start + index)}: {value:,}"
            fill = PEAK if index == peak else BAR
            yield _bar((x + gap / 2, ground - height), width - gap, height, fill=fill, label=label)
    middle = LEFT + (peak + 0.5) * width
    anchor = "start" if middle < 160 else "end" if middle > WIDTH - 160 else "middle"
    label = f"{unit.label(start + peak)}: {bars[peak]:,}"
    yield _text(middle, ground - room * bars[peak] / top - 8, label, PEAK, anchor=anchor, bold=True)
    for index, label in _time_labels(len(bars), unit=unit, start=start):
        x = LEFT + (index + 0.5) * width
        yield _line((x, ground), (x, ground + 5), MUTED)
        yield _text(x, ground + 21, label, anchor="middle")


def _time_labels(length: int, *, unit: Unit, start: int) -> Iterator[tuple[int, str]]:
    """Label round steps only: Januaries rather than every twelfth month from the first."""
    longest = max(len(unit.label(start)), len(unit.label(start + length - 1)))
    room = min(MAX_LABELS, (WIDTH - LEFT - RIGHT) // (8 * longest + 16))
    every = next((step for step in unit.rhythm if length <= step * room), None)
    if every is None:
        every = unit.rhythm[-1] * -(-length // (unit.rhythm[-1] * room))
    for index in range(length):
        if (start + index) % every == 0:
            yield index, unit.label(start + index)


def _missing_by_column(findings: Findings) -> Drawing:
    rows = findings.outcome.rows_out
    ranked = sorted(
        zip(findings.columns, findings.outcome.missing, strict=True),
        key=lambda pair: (-pair[1], pair[0].name),
    )
    shown = ranked[:MAX_COLUMNS]
    title = short(findings.request.title or "Missing values by column", 60)
    subtitle = f"Missing values by column, as a share of {count(rows, 'row')}"
    if more := len(ranked) - len(shown):
        subtitle += f"; {count(more, 'column')} with fewer missing values are not shown"
    worst, number = ranked[0]
    description = f"Bar chart of missing values by column, in {count(rows, 'row')}. " + (
        f"The most are in {short(worst.name, 40)}: {number:,} ({number / rows:.1%})."
        if number
        else "No value is missing."
    )
    body = "\n".join(_share_bars([(column.name, number) for column, number in shown], rows))
    return _drawing(title, subtitle, description, body, footer=_missing_note(findings))


def _share_bars(shares: list[tuple[str, int]], rows: int) -> Iterator[str]:
    left = 48 + 7 * min(28, max(len(name) for name, _ in shares))
    right = 150
    room = WIDTH - left - right
    pitch = min(34.0, (HEIGHT - TOP - BOTTOM + 16) / len(shares))
    for index, (name, number) in enumerate(shares):
        y = TOP - 12 + index * pitch
        height = pitch * 0.66
        share = number / rows
        label = f"{number:,} ({share:.1%})" if number else "none"
        full = f"{short(name, 40)}: {label}"
        middle = y + height / 2 + 4.5
        yield _text(left - 12, middle, short(name, 28), INK, anchor="end")
        yield _bar((left, y), room, height, fill=TRACK, label=full)
        if number:
            fill = PEAK if index == 0 else BAR
            yield _bar((left, y), max(room * share, 2), height, fill=fill, label=full)
        yield _text(left + room + 12, middle, label)


def _missing_note(findings: Findings) -> str:
    """One sentence on what is missing, and where."""
    missing = {
        column.name: number
        for column, number in zip(findings.columns, findings.outcome.missing, strict=True)
        if number
    }
    if not missing:
        return "No value is missing."
    worst = min(missing, key=lambda name: (-missing[name], name))
    total = count(sum(missing.values()), "missing value")
    if len(missing) == 1:
        return f"{total}, all in {short(worst, 40)}."
    return f"{total} in {len(missing):,} columns, most in {short(worst, 40)} ({missing[worst]:,})."


def _scale(largest: int) -> tuple[int, list[int]]:
    """A round top for the axis, and the values that get a line: at most six."""
    magnitude = 1
    while True:
        for factor in (1, 2, 5):
            step = factor * magnitude
            if step * 5 >= largest:
                lines = list(range(0, -(-largest // step) * step + 1, step))
                return lines[-1], lines
        magnitude *= 10


def _drawing(title: str, subtitle: str, description: str, body: str, *, footer: str) -> Drawing:
    svg = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" \
height="{HEIGHT}" role="img" aria-labelledby="title desc" font-family={quoteattr(FONT)} \
font-size="12">
<title id="title">{_xml(title)}</title>
<desc id="desc">{_xml(description)}</desc>
<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>
{_text(28, 42, title, INK, size=20, bold=True)}
{_text(28, 66, subtitle, size=13)}
{body}
{_text(28, HEIGHT - 16, footer)}
</svg>
"""
    return Drawing(title, description, svg)


def _bar(corner: Point, width: float, height: float, *, fill: str, label: str) -> str:
    x, y = corner
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" '
        f'rx="{min(2.0, width / 3):.2f}" fill="{fill}"><title>{_xml(label)}</title></rect>'
    )


def _line(start: Point, end: Point, stroke: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{stroke}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    fill: str = MUTED,
    *,
    anchor: str = "start",
    size: int = 12,
    bold: bool = False,
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" fill="{fill}" font-size="{size}" '
        f'text-anchor="{anchor}"{weight}>{_xml(text)}</text>'
    )


def _xml(text: str) -> str:
    """Text that XML 1.0 can hold: it knows no way to write most control characters."""
    return escape(_UNPRINTABLE.sub("\ufffd", text))
