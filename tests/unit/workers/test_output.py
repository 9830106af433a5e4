from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.runs.types import EventKind
from workers.output import LINE_LIMIT, Transcript


def _entries(*pieces: bytes, stream: str = "stdout"):
    transcript = Transcript()
    found = [entry for piece in pieces for entry in transcript.feed(stream, piece)]
    return [*found, *transcript.close()], transcript


def _command(**fields) -> bytes:
    return b"::aos " + json.dumps(fields).encode() + b"\n"


def test_lines_become_log_lines():
    entries, _ = _entries(b"one\ntw", b"o\r\nthree")

    assert [entry.payload["text"] for entry in entries] == ["one", "two", "three"]
    assert {entry.kind for entry in entries} == {EventKind.LOG}


def test_a_milestone_becomes_a_message():
    entries, _ = _entries(_command(type="milestone", title="Half", progress=0.5, facts={"n": 3}))

    assert entries[0].kind == EventKind.MESSAGE
    assert entries[0].payload == {"title": "Half", "progress": 0.5, "facts": {"n": 3}}


def test_the_last_result_wins():
    _, transcript = _entries(
        _command(type="result", summary="first"), _command(type="result", summary="last")
    )

    assert transcript.result == {"summary": "last"}


@pytest.mark.parametrize(
    "line",
    [
        b"::aos not json\n",
        b"::aos []\n",
        b"::aos " + b"[" * 5000 + b"\n",
        _command(type="receipt", state="succeeded"),
        _command(type="milestone", title="x", progress=2),
        _command(type="milestone", title="x", more="y"),
        _command(type="milestone", title="nul \x00"),
        b'::aos {"type": "milestone", "title": "\\ud800"}\n',
        b'::aos {"type": "milestone", "title": "x", "progress": NaN}\n',
        b'::aos {"type": "milestone", "title": "x", "facts": {"n": 1e999}}\n',
        _command(type="result", summary="x" * 3000),
    ],
)
def test_a_malformed_command_is_a_warning_in_the_log(line):
    entries, transcript = _entries(line)

    assert [(entry.kind, entry.payload["level"]) for entry in entries] == [(EventKind.LOG, "WARN")]
    assert transcript.result == {}


def test_standard_error_gives_no_commands_and_is_remembered():
    entries, transcript = _entries(_command(type="result", summary="no"), stream="stderr")

    assert entries[0].payload["level"] == "WARN"
    assert transcript.result == {}
    assert transcript.complaints[0].startswith("::aos")


@given(st.lists(st.binary(max_size=3 * LINE_LIMIT), max_size=6))
def test_any_bytes_become_bounded_storable_lines(pieces):
    entries, _ = _entries(*pieces)

    for entry in entries:
        assert len(entry.payload["text"].encode("utf-8")) <= 3 * LINE_LIMIT
        assert "\x00" not in entry.payload["text"]


@given(st.binary(max_size=500), st.integers(1, 40))
def test_how_the_bytes_were_cut_does_not_matter(data, size):
    whole, _ = _entries(data)
    cut, _ = _entries(*[data[i : i + size] for i in range(0, len(data), size)])

    assert cut == whole
