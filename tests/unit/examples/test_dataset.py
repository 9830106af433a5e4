"""Every figure that SOURCE.md claims is counted here, in the file itself."""

from __future__ import annotations

import csv
import hashlib
import re
from datetime import date
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "examples" / "csv-report" / "data"
CSV = DATA / "birdstrikes.csv"
SOURCE = (DATA / "SOURCE.md").read_text("utf-8")


@pytest.fixture(scope="module")
def rows():
    with CSV.open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def dates(rows):
    """First number, second number and year as they are written."""
    written = [re.fullmatch(r"(\d+)/(\d+)/(\d\d) 0:00", row["Flight_Date"]) for row in rows]
    return [tuple(map(int, match.groups())) for match in written]


def claimed(column, what):
    """The count in SOURCE.md's table in the line of this column that holds these words."""
    found = re.findall(rf"\| {re.escape(column)} \| ([\d,]+) \| .*{re.escape(what)}.*\|", SOURCE)
    assert len(found) == 1, (column, what)
    return int(found[0].replace(",", ""))


def test_the_file_is_the_one_described():
    content = CSV.read_bytes()

    assert hashlib.sha256(content).hexdigest() in SOURCE
    assert f"{len(content):,} bytes" in SOURCE
    assert b"\r" not in content


def test_rows_and_columns_are_counted_rightly(rows):
    assert f"{len(rows):,} rows under a header, {len(rows[0])} columns" in SOURCE


def test_repeated_rows_are_counted_rightly(rows):
    distinct = {tuple(row.values()) for row in rows}

    assert len(rows) - len(distinct) == claimed("all", "repeat an earlier row")


def test_missing_values_are_counted_rightly(rows):
    missing = {
        name: empty for name in rows[0] if (empty := sum(not row[name].strip() for row in rows))
    }

    assert missing == {"Speed_IAS_in_knots": claimed("`Speed_IAS_in_knots`", "without a value")}
    assert f"{missing['Speed_IAS_in_knots'] / len(rows):.1%}".replace("%", " %") in SOURCE


def test_dates_are_described_rightly(rows, dates):
    spellings = {re.sub(r"\d", "9", row["Flight_Date"]) for row in rows}
    swappable = [pair for pair in dates if pair[1] <= 12 and pair[0] != pair[1]]

    assert len(dates) == claimed("`Flight_Date`", "not ISO 8601")
    assert len(spellings) == claimed("`Flight_Date`", "spellings")
    assert len(swappable) == claimed("`Flight_Date`", "swapped")
    assert sum(second > 12 for _, second, _ in dates) == claimed("`Flight_Date`", "month first")
    assert not any(first > 12 for first, _, _ in dates)


def test_the_flights_are_from_the_days_named(dates):
    days = [date(1900 + y if y > 68 else 2000 + y, month, day) for month, day, y in dates]

    assert (min(days), max(days)) == (date(1994, 1, 1), date(2002, 7, 25))
    assert "1 January 1994 and\n25 July 2002" in SOURCE


def test_words_and_codes_are_counted_rightly(rows):
    damage = [row["Effect__Amount_of_damage"] for row in rows]
    operators = [row["Aircraft__Airline_Operator"] for row in rows]
    models = [row["Aircraft__Make_Model"] for row in rows]

    assert damage.count("None") == claimed("`Effect__Amount_of_damage`", "no damage")
    assert (damage.count("C"), damage.count("B")) == (9, 1)
    assert claimed("`Effect__Amount_of_damage`", "codes") == 10
    assert set(damage) == {"None", "Minor", "Substantial", "Medium", "C", "B"}
    assert operators.count("UNKNOWN") == claimed("`Aircraft__Airline_Operator`", "UNKNOWN")
    starred = sum(name.endswith("*") for name in operators)
    assert starred == claimed("`Aircraft__Airline_Operator`", "footnote")
    assert sum("  " in name for name in models) == claimed("`Aircraft__Make_Model`", "two spaces")


def test_there_are_reports_from_fifty_airports(rows):
    assert len({row["Airport__Name"] for row in rows}) == 50
    assert "50 airports" in SOURCE
