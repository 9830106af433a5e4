"""Applies what was decided for each column, drops repeated and empty rows, and writes the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from columns import Column, study
from reading import BadInput, Table
from words import short

SHOWN_REPEATS = 5

# Any delimiter is quoted, not only our own, so that no reader can take another one for it.
_NEEDS_QUOTES = re.compile(r'[",;|\t\n\r]')


@dataclass(slots=True)
class Outcome:
    rows_in: int
    rows_out: int = 0
    empty_rows: int = 0
    repeated: int = 0
    repeats: list[tuple[int, int]] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    # The dates of the rows that stayed, for each date column by its index.
    dates: dict[int, Counter[str]] = field(default_factory=dict)


def clean_columns(
    table: Table, *, date_columns: list[str] | None, advance: Callable[[int], None]
) -> list[Column]:
    """Study every column and rewrite its cells in place; ``advance`` gets the columns done."""
    if unknown := sorted(set(date_columns or ()) - set(table.header)):
        raise BadInput(f"There is no column called '{short(unknown[0], 60)}'.")
    columns = []
    for index, name in enumerate(table.header):
        as_dates = None if date_columns is None else name in date_columns
        column = study(name, (row[index] for row in table.rows), as_dates=as_dates)
        becomes = column.becomes
        for row in table.rows:
            if row[index] in becomes:
                row[index] = becomes[row[index]]
        columns.append(column)
        advance(index + 1)
    return columns


def count_repeats(rows: list[list[str]]) -> int:
    """How many rows with a value repeat an earlier row, letter by letter."""
    filled = [tuple(row) for row in rows if any(row)]
    return len(filled) - len(set(filled))


def write(
    table: Table, path: Path, *, date_columns: list[int], advance: Callable[[int], None]
) -> Outcome:
    """Write each distinct row once, in the order of the file, and count what was left out."""
    outcome = Outcome(rows_in=len(table.rows), missing=[0] * table.width)
    outcome.dates = {index: Counter() for index in date_columns}
    with path.open("w", encoding="utf-8", newline="") as file:
        _write_row(file, table.header)
        for row in _kept(table, outcome, advance):
            _write_row(file, row)
            for index, cell in enumerate(row):
                if not cell:
                    outcome.missing[index] += 1
            for index, tally in outcome.dates.items():
                tally[row[index]] += 1
    if not outcome.rows_out:
        path.unlink()
        raise BadInput("The CSV has rows, but no value in any of them.")
    return outcome


def _kept(table: Table, outcome: Outcome, advance: Callable[[int], None]) -> Iterator[list[str]]:
    first: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(table.rows, start=1):
        advance(number)
        if not any(row):
            outcome.empty_rows += 1
            continue
        earlier = first.setdefault(tuple(row), number)
        if earlier != number:
            outcome.repeated += 1
            if len(outcome.repeats) < SHOWN_REPEATS:
                outcome.repeats.append((number, earlier))
            continue
        outcome.rows_out += 1
        yield row


def _write_row(file: TextIO, row: list[str]) -> None:
    file.write(",".join(map(_field, row)) + "\n")


def _field(text: str) -> str:
    if _NEEDS_QUOTES.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text
