"""Input that cannot be worked on: one clear sentence, exit code 2, nothing written, no traceback."""

from __future__ import annotations

import json
import zipfile

import pytest


def refusal(ran):
    """The one sentence, after checking everything else a refusal promises."""
    assert ran.code == 2, ran.stdout + ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.endswith(".\n")
    assert ran.commands[-1]["type"] != "result"
    assert list(ran.out.iterdir()) == []
    return ran.stderr.strip()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The CSV is empty: there is no header and no row."),
        ("\ufeff \r\n\t\n", "The CSV is empty: there is no header and no row."),
        (",,\n,,\n", "The CSV is empty: there is no header and no row."),
        ("a,b\n", "The CSV has a header but no rows."),
        ("a,b\n,\n\n , \n", "The CSV has a header but no rows."),
        ("a,b\nN/A,NULL\n", "The CSV has rows, but no value in any of them."),
        ('a,b\n1,2\n3,"4\n5,6\n', "A quote that opens on line 3 or after is never closed."),
        ("a\0b\n1\n", "The CSV holds NUL bytes: it is binary data, or UTF-16 without its mark."),
        (
            "a,b\n" + "\x01\x02" * 50,
            "The CSV is full of control characters: it is binary data, not text.",
        ),
        (",".join("a" * 2001) + "\n1\n", "The CSV has more than 2,000 columns."),
        (
            "a,b\n" + "," * 1500 + "x\n" + "b,c\n" * 9000,
            "The CSV is too ragged: filled up, it would have too many cells.",
        ),
    ],
    ids=[
        *("nothing", "blank", "delimiters only", "header only", "blank rows", "missing only"),
        *("open quote", "NUL", "control characters", "too wide", "ragged bomb"),
    ],
)
def test_text_that_is_no_table_is_refused(run_agent, text, sentence):
    assert refusal(run_agent("csv-report", {"csv": text})) == sentence


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("", "input.json is not valid JSON."),
        ("{", "input.json is not valid JSON."),
        ("[" * 100_000, "input.json is not valid JSON."),
        ("[1]", 'The input must be a JSON object such as {"csv": "a,b\\n1,2\\n"}.'),
        ("{}", "The input must have exactly one of the fields 'csv' and 'file'."),
        (
            {"csv": "a", "file": "b"},
            "The input must have exactly one of the fields 'csv' and 'file'.",
        ),
        ({"csv": 5}, "The field 'csv' must be text."),
        ({"csv": None}, "The field 'csv' must be text."),
        ({"csv": "a\n1", "title": ["x"]}, "The field 'title' must be text."),
        ({"csv": "a\n1", "colour\n": 1}, "The input has an unknown field: 'colour '."),
        (
            {"csv": "a\n1", "date_columns": "a"},
            "The field 'date_columns' must be a list of column names.",
        ),
        (
            {"csv": "a\n1", "date_columns": [1]},
            "The field 'date_columns' must be a list of column names.",
        ),
        ({"csv": "a\n1", "date_columns": ["b"]}, "There is no column called 'b'."),
        ({"csv": "a\n\ud800"}, "The field 'csv' holds half a character (a lone surrogate)."),
    ],
)
def test_a_task_that_is_wrong_is_refused(run_agent, task, sentence):
    assert refusal(run_agent("csv-report", task)) == sentence


@pytest.mark.parametrize("name", ["", ".", "..", "../input.json", "/etc/passwd", "a\0b", "x" * 300])
def test_a_file_outside_the_input_folder_is_refused(run_agent, name):
    assert refusal(run_agent("csv-report", {"file": name})).endswith(
        "is not the name of an input file."
    )


def test_a_link_is_no_input_file(run_agent, tmp_path):
    (tmp_path / "in" / "files").mkdir(parents=True)
    (tmp_path / "in" / "files" / "x.csv").symlink_to("/etc/passwd")
    ran = run_agent("csv-report", {"file": "x.csv"}, folder=tmp_path)

    assert refusal(ran) == "'x.csv' is not the name of an input file."


def test_an_unknown_file_is_refused_by_name(run_agent):
    assert refusal(run_agent("csv-report", {"file": "no.csv"})) == (
        "There is no input file called 'no.csv'."
    )


def test_a_run_without_input_is_refused(run_agent, tmp_path):
    ran = run_agent("csv-report", {}, environment={"AOS_IN": str(tmp_path / "nowhere")})

    assert refusal(ran) == "There is no input.json."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"%PDF-1.7 ...", "The file is a PDF document, not CSV."),
        (b"\x89PNG\r\n\x1a\n", "The file is a PNG picture, not CSV."),
        (b"\x1f\x8b\x08\x00", "The file is a gzip archive, not CSV."),
        (b"\xff\xfea", "The file begins like utf-16 text, but is not."),
        (b"\xef\xbb\xbfa,b\n\xff,1\n", "The file begins like utf-8-sig text, but is not."),
        (
            "a,b\n1,2\n".encode("utf-16-le"),
            "The CSV holds NUL bytes: it is binary data, or UTF-16 without its mark.",
        ),
        (b"a\n" + b"x" * (10 * 1024 * 1024), "'x.csv' is larger than 10,485,760 bytes."),
    ],
    ids=["pdf", "png", "gzip", "half utf-16", "broken utf-8", "unmarked utf-16", "too large"],
)
def test_a_file_that_is_no_csv_is_refused(run_agent, content, sentence):
    ran = run_agent("csv-report", {"file": "x.csv"}, files={"x.csv": content})

    assert refusal(ran) == sentence


def test_a_workbook_is_refused_by_its_kind(run_agent, tmp_path):
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as book:
        book.writestr("xl/workbook.xml", "<workbook/>")
    content = (tmp_path / "book.xlsx").read_bytes()
    ran = run_agent("csv-report", {"file": "x.csv"}, files={"x.csv": content})

    assert refusal(ran) == "The file is a zip archive or an Excel workbook, not CSV."


def test_more_rows_than_allowed_are_refused(run_agent):
    content = b"a\n" + b"1\n" * 500_001
    ran = run_agent("csv-report", {"file": "x.csv"}, files={"x.csv": content})

    assert refusal(ran) == "The CSV has more than 500,000 rows."


def test_text_over_the_limit_is_refused(run_agent):
    task = json.dumps({"csv": "é" * (5 * 1024 * 1024 + 1)}, ensure_ascii=False)

    assert refusal(run_agent("csv-report", task)) == "The CSV text is larger than 10,485,760 bytes."
