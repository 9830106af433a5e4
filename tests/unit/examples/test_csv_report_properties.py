"""What holds for any table, found by trying hundreds of them."""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

MARKERS = {
    *("-", "--", "---", "?", "??", ".", "n/a", "#n/a", "nan", "null", "(null)", "<na>", "\\n"),
    *("na", "none", "nil", "missing", "unknown", "undefined", "unspecified", "tbd", "n.a."),
}
TEXT = st.text(st.characters(categories=["L", "P", "S"], include_characters=' \n",;'), max_size=8)
WORDS = TEXT.filter(lambda text: text.strip().casefold() not in MARKERS)
ANYTHING = st.one_of(
    st.text(st.characters(exclude_categories=["C"], include_characters="\r\n\t\u200b"), max_size=8),
    st.dates().map(date.isoformat),
    st.dates(date(1970, 1, 1), date(2068, 12, 31)).map(lambda d: f"{d.month}/{d.day}/{d:%y}"),
    st.dates().map(lambda d: f"{d.day}.{d.month}.{d.year}"),
    st.datetimes().map(lambda t: f"{t:%d %b %Y %I:%M %p}"),
    st.datetimes().map(datetime.isoformat),
    st.integers(-5, 20_300_101).map(str),
    st.floats(allow_nan=True).map(str),
    st.sampled_from(["", "NA", "N/A", "null", "None", "unknown", "-", "?", "+", "DE", "1/2/03"]),
)


def written(rows, **dialect):
    text = io.StringIO(newline="")
    csv.writer(text, **dialect).writerows(rows)
    return text.getvalue()


def cleaned(csv_report, text):
    """Run the agent in this process; the files it left, or None when it refused."""
    with TemporaryDirectory() as folder:
        inbox, outbox = Path(folder, "in"), Path(folder, "out")
        inbox.mkdir()
        outbox.mkdir()
        (inbox / "input.json").write_text(json.dumps({"csv": text}), encoding="utf-8")
        try:
            csv_report.run(inbox, outbox)
        except csv_report.reading.BadInput:
            return None
        return {path.name: path.read_bytes().decode() for path in outbox.iterdir()}


@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(WORDS, min_size=width, max_size=width), min_size=1, max_size=12
        )
    )
)
def test_every_row_survives_once_and_in_order(csv_report, rows):
    expected = [tuple(cell.strip().replace("\r", "\n") for cell in row) for row in rows]
    expected = [row for row in dict.fromkeys(expected) if any(row)]
    assume(expected)
    header = [f"c{index}" for index in range(len(rows[0]))]

    files = cleaned(csv_report, written([header, *rows], quoting=csv.QUOTE_ALL))

    read = csv.reader(io.StringIO(files["clean.csv"], newline=""))
    assert [tuple(row) for row in read] == [tuple(header), *expected]


@settings(max_examples=200)
@given(
    rows=st.lists(st.lists(ANYTHING, min_size=1, max_size=5), min_size=2, max_size=12),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_cleaning_a_clean_file_changes_nothing(csv_report, rows, delimiter, end):
    first = cleaned(csv_report, written(rows, delimiter=delimiter, lineterminator=end))
    assume(first is not None)

    second = cleaned(csv_report, first["clean.csv"])

    assert second["clean.csv"] == first["clean.csv"]


@given(column=st.lists(ANYTHING, min_size=2, max_size=20))
def test_cleaning_one_column_again_changes_nothing(csv_report, column):
    first = cleaned(
        csv_report, written([["c"], *([cell] for cell in column)], quoting=csv.QUOTE_ALL)
    )
    assume(first is not None)

    second = cleaned(csv_report, first["clean.csv"])

    assert second["clean.csv"] == first["clean.csv"]


@given(text=st.one_of(st.text(), st.text(st.sampled_from('ab",;\n\r\t|=1/-'))))
def test_any_text_is_cleaned_or_refused_and_its_chart_is_xml(csv_report, text):
    assume(not any("\ud800" <= character <= "\udfff" for character in text))

    files = cleaned(csv_report, text)

    assert files is None or ElementTree.fromstring(files["chart.svg"]) is not None  # noqa: S314


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_text_or_refused(csv_report, raw):
    try:
        text, encoding = csv_report.reading.decode(raw)
    except csv_report.reading.BadInput:
        return
    assert "\0" not in text
    assert encoding


@pytest.fixture(scope="session")
def dates(csv_report):
    """The agent's module of dates, found where its columns found it."""
    return csv_report.cleaning.study.__globals__["dates"]


@given(day=st.dates(date(1000, 1, 1), date(2999, 12, 31)))
@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d",
        "%Y/%m/%d",
        "%d %B %Y",
        "%d-%b-%Y",
        "%b %d, %Y",
        "%a, %d %b %Y",
        "%Y %b %d",
        "%Y%m%d",
    ],
)
def test_an_unambiguous_date_is_read_back(dates, form, day):
    found = dates.read(day.strftime(form).replace(f"{day:%Y}", f"{day.year:04d}"))

    assert found.iso(None, with_time=True) == day.isoformat()


@given(day=st.dates(date(1000, 1, 1), date(2999, 12, 31)))
def test_an_open_date_follows_the_order_of_its_column(dates, day):
    american = dates.read(f"{day.month}/{day.day}/{day.year}")
    european = dates.read(f"{day.day}/{day.month}/{day.year}")

    assert american.iso(dates.Order.MONTH_FIRST, with_time=True) == day.isoformat()
    assert european.iso(dates.Order.DAY_FIRST, with_time=True) == day.isoformat()


@pytest.mark.parametrize(
    ("written_as", "iso"),
    [
        ("1998-06-12 10:30", "1998-06-12T10:30"),
        ("12 Jun 1998 10:30:05 PM", "1998-06-12T22:30:05"),
        ("Jun 12, 1998 12:00 a.m.", "1998-06-12T00:00"),
        ("1998-06-12T10:30:05.250Z", "1998-06-12T10:30:05.250Z"),
        ("1998-06-12 10:30:05+0200", "1998-06-12T10:30:05+02:00"),
        ("1998-06-12 10:30 UTC", "1998-06-12T10:30Z"),
        ("12th June 1998", "1998-06-12"),
        ("1st Sept. 2001", "2001-09-01"),
        ("12-Jun-68", "2068-06-12"),
        ("12-Jun-69", "1969-06-12"),
        ("June 1998", "1998-06"),
        ("06/1998", "1998-06"),
        ("1998", "1998"),
    ],
)
def test_a_date_is_read_as_it_is_meant(dates, written_as, iso):
    assert dates.read(written_as).iso(None, with_time=True) == iso


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "May", "1998-02-30", "31/31/1998", "24:00", "1998-06-12 24:00", "0000-00-00"),
        *("1998-06-12 13:00 PM", "12 Foo 1998", "1.2.98", "1998/13", "٣/٤/١٩٩٨", "1" * 60),
    ],
)
def test_what_is_no_date_is_not_read(dates, text):
    assert dates.read(text) is None


def test_the_agent_leaves_no_module_behind(csv_report):
    assert not {"aos", "reading", "columns", "dates", "chart", "report"} & set(sys.modules)
