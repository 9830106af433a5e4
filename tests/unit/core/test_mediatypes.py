from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core import mediatypes

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@pytest.mark.parametrize(
    ("name", "head", "told"),
    [
        ("chart.png", PNG, "image/png"),
        ("chart.csv", PNG, "image/png"),
        ("chart", PNG, "image/png"),
        ("photo.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        ("a.webp", b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        ("report.pdf", b"%PDF-1.7\n%\xe2\xe3", "application/pdf"),
        ("report.txt", b"%PDF-1.7\n", "application/pdf"),
        ("book.xlsx", b"PK\x03\x04\x14\0", XLSX),
        ("book.zip", b"PK\x03\x04\x14\0", "application/zip"),
        ("book.png", b"PK\x03\x04\x14\0", "application/zip"),
        ("rows.csv", b"a,b\n1,2\n", "text/csv"),
        ("ROWS.CSV", b"a,b\n1,2\n", "text/csv"),
        ("report.md", "# Größe\n".encode(), "text/markdown"),
        ("data.json", b'{"a": 1}', "application/json"),
        ("page.html", b"<script>alert(1)</script>", "text/html"),
        ("page.png", b"<script>alert(1)</script>", "text/plain"),
        ("page.pdf", b"<script>alert(1)</script>", "text/plain"),
        ("chart.svg", b'<?xml version="1.0"?><svg xmlns="x"/>', "image/svg+xml"),
        ("chart.svg", b"no picture at all", "text/plain"),
        ("notes", b"just words", "text/plain"),
        ("BMW.txt", b"BMW sold 3 cars", "text/plain"),
        ("rows.csv", b"\0\1\2\3", "application/octet-stream"),
        ("chart.png", b"\0\1\2\3", "application/octet-stream"),
        ("model.bin", b"\0\1\2\3", "application/octet-stream"),
        ("latin.txt", b"caf\xe9", "application/octet-stream"),
        ("nothing.csv", b"", "text/csv"),
        ("nothing.png", b"", "text/plain"),
        ("folder.d/name", b"words", "text/plain"),
    ],
)
def test_the_content_decides_and_the_name_may_choose_among_texts(name, head, told):
    assert mediatypes.sniff(name, head) == told


def test_a_character_cut_in_two_at_the_end_of_the_head_is_still_text():
    head = ("x" + "é" * mediatypes.HEAD).encode()[: mediatypes.HEAD]

    assert mediatypes.sniff("a.md", head) == "text/markdown"


@given(name=st.text(max_size=30), head=st.binary(max_size=600))
def test_whatever_comes_it_is_a_plain_media_type_and_no_false_image(name, head):
    told = mediatypes.sniff(name, head)

    assert told.count("/") == 1
    assert told.isascii()
    assert told.isprintable()
    if told == "image/png":
        assert head.startswith(b"\x89PNG")
