"""csv-report on real data and on the kinds of dirt that CSV files have."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

DATA = Path(__file__).parents[3] / "examples" / "csv-report" / "data"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def strikes(run_agent):
    content = (DATA / "birdstrikes.csv").read_bytes()
    return run_agent("csv-report", {"file": "birdstrikes.csv"}, files={"birdstrikes.csv": content})


def columns_of(report):
    """The report's table of columns: name -> its other cells."""
    lines = re.search(r"## Columns\n\n.*\n.*\n((?:\|.*\n)+)", report)[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): rest for name, *rest in cells}


def test_the_real_dataset_comes_out_as_its_publisher_cleaned_it(strikes):
    text = "".join("\x1f".join(row) + "\n" for row in strikes.rows())

    assert strikes.code == 0, strikes.stderr
    assert hashlib.sha256(text.encode()).hexdigest() in (DATA / "SOURCE.md").read_text("utf-8")


def test_the_result_states_the_figures_of_the_real_dataset(strikes):
    assert strikes.result["facts"] == {
        "rows_before": 7632,
        "rows_after": 7614,
        "columns": 14,
        "duplicates_removed": 18,
        "empty_rows_removed": 0,
        "cells_tidied": 0,
        "markers_unified": 0,
        "dates_normalised": 7632,
        "dates_left_open": 0,
        "missing_before": 2435,
        "missing_after": 2429,
    }


def test_the_report_shows_the_figures_of_the_real_dataset(strikes):
    report = strikes.text("report.md")
    columns = columns_of(report)

    assert "| Rows | 7,632 | 7,614 |" in report
    assert "| Dates in ISO 8601 | 0 | 7,614 |" in report
    assert len(columns) == 14
    assert columns["Flight_Date"][0] == "date"
    assert columns["Flight_Date"][-2:] == ["`1994-01-01`", "`2002-07-25`"]
    assert columns["Speed_IAS_in_knots"][1:3] == ["2,435 (31.9%)", "2,429 (31.9%)"]
    assert "the month comes first, because 1,573 distinct dates" in report


def test_no_damage_is_not_taken_for_a_missing_value(strikes):
    assert sum(row[2] == "None" for row in strikes.rows()) > 6_700
    assert "`Effect__Amount_of_damage`: `None` (6,789 times)" in strikes.text("report.md")


def test_progress_follows_the_rows_and_ends_at_one(strikes, platform_log):
    steps = strikes.milestones()
    progress = [step["progress"] for step in steps]

    assert steps[0]["facts"] == {"rows": 7632, "columns": 14}
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert not [line for line in platform_log(strikes) if line.get("level") == "WARN"]


def test_a_long_file_reports_progress_within_its_steps(clean):
    ran = clean("id,word\n" + "".join(f"{n},w{n}\n" for n in range(60_000)))
    reading = [step for step in ran.milestones() if step["progress"] < 0.25]

    assert [step["title"] for step in reading] == ["Read 20,000 rows", "Read 40,000 rows"]
    assert reading[0]["facts"] == {"rows": 20_000}
    assert reading[0]["progress"] == pytest.approx(20_000 / 60_000 / 4, abs=0.001)


def test_the_plan_is_done_at_the_end(strikes):
    plans = [command for command in strikes.commands if command["type"] == "todo"]

    assert {item["state"] for item in plans[-1]["items"]} == {"done"}
    assert [item["state"] for item in plans[0]["items"]][:2] == ["doing", "pending"]


def test_the_same_input_gives_the_same_bytes(run_agent):
    content = (DATA / "birdstrikes.csv").read_bytes()
    names = ("clean.csv", "report.md", "chart.svg")
    outputs = []
    for seed in ("1", "2"):
        ran = run_agent(
            "csv-report",
            {"file": "b.csv"},
            files={"b.csv": content},
            environment={"PYTHONHASHSEED": seed},
        )
        outputs.append([(ran.out / name).read_bytes() for name in names])

    assert outputs[0] == outputs[1]


def test_the_chart_shows_rows_over_time(strikes):
    chart = ElementTree.fromstring(strikes.text("chart.svg"))  # noqa: S314  # our own output
    bars = [bar.findtext(f"{SVG}title") for bar in chart.iter(f"{SVG}rect")]
    counts = [int(label.rpartition(": ")[2]) for label in bars if label]

    assert len(counts) == 103
    assert sum(counts) == 7614
    assert bars[1] == "Jan 1994: 23"


@pytest.mark.parametrize(
    "text",
    [
        "day,n\n" + "".join(f"2024-05-{n:02d},{n}\n" for n in range(1, 29)),
        "a,b\n1,\n2,x\n",
        "a,b\n1,2\n",
        '"</title><script>alert(1)</script>","\x1b&<>"\nx,\n',
    ],
    ids=["over time", "missing values", "nothing missing", "hostile names"],
)
def test_a_chart_is_accessible_and_carries_no_script(clean, text):
    svg = clean(text, title='A <title> & a "quote"').text("chart.svg")
    chart = ElementTree.fromstring(svg)  # noqa: S314  # our own output
    tags = {element.tag.removeprefix(SVG) for element in chart.iter()}
    attributes = {name for element in chart.iter() for name in element.attrib}

    assert chart.attrib["role"] == "img"
    assert chart.find(f"{SVG}title").attrib["id"] in chart.attrib["aria-labelledby"]
    assert chart.findtext(f"{SVG}title") == 'A <title> & a "quote"'
    assert len(chart.findtext(f"{SVG}desc")) > 20
    assert tags <= {"svg", "title", "desc", "rect", "line", "text"}
    assert not [name for name in attributes if name.startswith("on") or "href" in name]


def test_days_of_a_month_get_a_bar_each(clean):
    ran = clean("day,n\n" + "".join(f"2024-05-{n:02d},{n}\n" for n in range(1, 29)))

    assert ran.text("chart.svg").count("<rect ") == 29
    assert "Rows per day of day" in ran.text("chart.svg")


def test_centuries_fit_into_one_chart(clean):
    ran = clean("day,n\n" + "".join(f"{1000 + 65 * n}-05-01,{n}\n" for n in range(30)))

    assert "Rows per century of day" in ran.text("chart.svg")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(clean, mark):
    ran = clean(f"name{mark}note{mark}n\nAnn{mark}x, y; z{mark}1\nBo{mark}{mark}2\n")

    assert ran.rows() == [["Ann", "x, y; z", "1"], ["Bo", "", "2"]] or mark in ",;"
    assert ran.result["facts"]["columns"] >= 3


def test_decimal_commas_do_not_hide_a_semicolon(clean):
    assert clean("a;b\n1,5;2,5\n3,5;4,5\n").rows() == [["1,5", "2,5"], ["3,5", "4,5"]]


def test_excels_separator_line_is_obeyed(clean):
    assert clean("\ufeffsep=;\r\na;b\r\n1,2;3,4\r\n").rows() == [["1,2", "3,4"]]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_recognised(run_agent, codec):
    content = "naïve,€\ncafé,1\n".encode(codec)
    ran = run_agent("csv-report", {"file": "x.csv"}, files={"x.csv": content})

    assert ran.code == 0, ran.stderr
    assert ran.text("clean.csv") == "naïve,€\ncafé,1\n"


def test_quoted_line_breaks_and_quotes_survive(clean):
    ran = clean('a,b\r\n"two\r\nlines","say ""hi"""\r\nx,y\r\n')

    assert ran.rows() == [["two\nlines", 'say "hi"'], ["x", "y"]]


def test_ragged_rows_lose_no_value(clean):
    ran = clean("a,b\n1\n2,3\n4,5,6\n7,8,,\n")

    assert ran.rows() == [["1", "", ""], ["2", "3", ""], ["4", "5", "6"], ["7", "8", ""]]
    assert ran.text("clean.csv").startswith("a,b,column_3\n")
    assert "1 row shorter than the header" in ran.text("report.md")
    assert "1 row longer than the header" in ran.text("report.md")


def test_one_column_needs_no_delimiter(clean):
    ran = clean("name\nSmith, Ann\nLee; Bo\n")

    assert ran.rows() == [["Smith, Ann"], ["Lee; Bo"]]
    assert "no delimiter" in ran.stdout


def test_columns_get_names_of_their_own(clean):
    ran = clean("a,,a,a_2, b \n1,2,3,4,5\n")

    assert ran.text("clean.csv").splitlines()[0] == "a,column_2,a_3,a_2,b"


def test_spaces_and_invisible_characters_are_trimmed(clean):
    ran = clean("a,b\n  x ,\u00a0y\u200b\nx,y\n")

    assert ran.rows() == [["x", "y"]]
    assert ran.result["facts"]["cells_tidied"] == 2
    assert ran.result["facts"]["duplicates_removed"] == 1


def test_rows_without_any_value_are_left_out(clean):
    ran = clean("a,b\n1,2\n , \n,N/A\n\n3,4\n")

    assert ran.rows() == [["1", "2"], ["3", "4"]]
    assert ran.result["facts"]["empty_rows_removed"] == 3


@pytest.mark.parametrize("marker", ["N/A", "NULL", "NaN", "#N/A", "-", "?", "NA"])
def test_markers_become_empty_in_any_column(clean, marker):
    assert clean(f"a,b\nx,{marker}\ny,word\n").rows() == [["x", ""], ["y", "word"]]


@pytest.mark.parametrize("word", ["None", "unknown", "nil", "missing", "TBD"])
def test_a_word_is_missing_among_numbers_and_an_answer_among_words(clean, word):
    ran = clean(f"n,w\n1,Minor\n{word},{word}\n3,Major\n")

    assert ran.rows() == [["1", "Minor"], ["", word], ["3", "Major"]]
    assert f"`w`: `{word}` (1 time)" in ran.text("report.md")


def test_namibia_is_a_country_and_minus_is_an_answer(clean):
    ran = clean("country,rh\nNA,-\nDE,+\nFR,+\nGB,-\n")

    assert ran.rows() == [["NA", "-"], ["DE", "+"], ["FR", "+"], ["GB", "-"]]


def test_mixed_dates_become_iso_dates(clean):
    written = ["12/31/1999", "1/2/00", "Jun 12 1998", "12 March 2001", "2004-5-6", "20050708"]
    ran = clean("when\n" + "\n".join(f'"{text}"' for text in written) + "\n")

    assert [row[0] for row in ran.rows()] == [
        *("1999-12-31", "2000-01-02", "1998-06-12"),
        *("2001-03-12", "2004-05-06", "2005-07-08"),
    ]


def test_one_telling_date_settles_its_column_and_no_other(clean):
    ran = clean("us,eu,open\n12/31/99,31/12/99,1/2/99\n3/4/98,3/4/98,3/4/98\n")

    assert ran.rows() == [
        ["1999-12-31", "1999-12-31", "1/2/99"],
        ["1998-03-04", "1998-04-03", "3/4/98"],
    ]
    assert ran.result["facts"]["dates_left_open"] == 2
    assert "`open`: `1/2/99` (1 time), `3/4/98` (1 time). Day or month first?" in ran.text(
        "report.md"
    )


def test_contradicting_dates_leave_the_open_ones_alone(clean):
    ran = clean("d\n12/31/99\n31/12/98\n3/4/98\n5/5/98\n")

    assert [row[0] for row in ran.rows()] == ["1999-12-31", "1998-12-31", "3/4/98", "1998-05-05"]


def test_separators_are_weighed_apart(clean):
    ran = clean("d\n12/31/1999\n31.12.1999\n3/4/1998\n3.4.1998\n")

    assert [row[0] for row in ran.rows()] == ["1999-12-31", "1998-03-04", "1998-04-03"]


def test_times_stay_unless_all_are_midnight(clean):
    ran = clean("a,b\n1/31/99 0:00,1/31/99 0:00\n2/28/99 0:00,2/28/99 1:30 PM\n")

    assert ran.rows() == [
        ["1999-01-31", "1999-01-31T00:00"],
        ["1999-02-28", "1999-02-28T13:30"],
    ]


@pytest.mark.parametrize(
    "values",
    [
        ["1.10.12", "1.2.3", "2.11.10"],
        ["20011301", "20019999", "20010101"],
        ["555-1234", "555-9876", "1-800-555"],
        ["1999", "2000", "2001"],
        ["3/4", "1/2", "7/8"],
    ],
    ids=["versions", "account numbers", "telephones", "years", "fractions"],
)
def test_what_only_looks_like_a_date_is_left_alone(clean, values):
    ran = clean("v\n" + "\n".join(values) + "\n")

    assert [row[0] for row in ran.rows()] == values
    assert ran.result["facts"]["dates_normalised"] == 0


def test_impossible_dates_are_left_and_named(clean):
    ran = clean("d\n1999-02-28\n1999-02-30\n1999-03-01\n")

    assert ["1999-02-30"] in ran.rows()
    assert "`1999-02-30` (1 time). Not readable as date." in ran.text("report.md")


def test_date_columns_can_be_named(clean):
    text = "a,b\n1/31/99,1/31/99\nsoon,x\nlater,y\n"
    ran = clean(text, date_columns=["a"])

    assert ran.rows()[0] == ["1999-01-31", "1/31/99"]


def test_the_report_shows_foreign_text_as_text(clean):
    hostile = "<img src=x onerror=alert(1)> | `tick` [a](javascript:alert(1))"
    text = f'"{hostile}",d\n"{hostile}",1/31/99\nnone,soon\n'
    report = clean(text, title=hostile).text("report.md")
    outside_code = re.sub(r"`[^`\n]*`", "", report)

    assert not re.search(r"(?<!\\)<", outside_code)
    assert "](javascript" not in outside_code
    assert set(columns_of(report).popitem()[1]) <= {"text", "0", "1 (50.0%)", "2", "1", ""}


@pytest.mark.slow
def test_ten_megabytes_fit_into_the_memory_of_the_sandbox(run_agent):
    days = (
        f"{n % 12 + 1}/{n % 28 + 1}/{1900 + n % 120} {n % 24}:{n % 60:02d}" for n in range(450_000)
    )
    content = ("when,what\n" + "".join(f"{day},{n:x}\n" for n, day in enumerate(days))).encode()
    assert 9_000_000 < len(content) < 10 * 1024 * 1024

    ran = run_agent("csv-report", {"file": "x.csv"}, files={"x.csv": content}, memory_mb=490)

    assert ran.code == 0, ran.stderr
    assert ran.result["facts"]["rows_after"] == 450_000
