from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apps.hub import log
from apps.hub.templatetags import aos
from apps.runs.models import RunEvent
from apps.runs.types import DISPATCHED, RunState


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (38_400, "38.4 kB"),
        (2_100_000, "2.1 MB"),
        (7 * 10**12, "7.0 TB"),
    ],
)
def test_sizes_are_told_in_decimal_units(count, said):
    assert aos.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0.42, "0.42 s"),
        (12.44, "12.4 s"),
        (59.96, "60.0 s"),
        (131, "2 min 11 s"),
        (11_100, "3 h 5 min"),
    ],
)
def test_durations_are_told_as_people_say_them(seconds, said):
    assert aos.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "yes"),
        (False, "no"),
        (None, "none"),
        (10_000, "10,000"),
        (0.25, "0.25"),
        (["a", 1], "a, 1"),
        ({"rows_in": 2}, "Rows in: 2"),
    ],
)
def test_facts_are_told_without_brackets_and_quotes(value, said):
    assert aos.plain(value) == said


@pytest.mark.parametrize("state", [*RunState.values, DISPATCHED])
def test_every_state_has_an_icon_and_a_word_of_its_own(state):
    chip = aos.state_chip(state)

    assert aos.face(state).icon != "help"
    assert f"#{aos.face(state).icon}" in chip
    assert aos.face(state).word in chip


def test_a_time_is_machine_readable_utc_until_the_page_makes_it_local():
    moment = datetime(2026, 11, 20, 14, 2, 16, 204000, tzinfo=UTC)

    tag = aos.when(moment, age=True)

    assert 'datetime="2026-11-20T14:02:16.204+00:00"' in tag
    assert "2026-11-20 14:02 UTC" in tag
    assert 'data-age="2026-11-20T14:02:16+00:00"' in tag


STEPS = [{"title": "a", "state": "done"}, {"title": "b", "state": "doing"}]
RETRY = {
    "state": "queued",
    "attempt": 1,
    "retry_in_s": 2.0,
    "error": {"code": "boom", "detail": "It broke."},
}


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        ("log", {"level": "WARN", "source": "stderr", "text": "odd"}, ("warn", "stderr", "odd")),
        ("log", {"level": "shout", "text": "x"}, ("info", "log", "x")),
        ("message", {"title": "Half done"}, ("info", "milestone", "Half done")),
        ("todo", {"items": STEPS}, ("info", "plan", "1 of 2 steps done")),
        (
            "run",
            RETRY,
            ("info", "run", "run queued, attempt 1, next attempt in 2.0 s, boom: It broke."),
        ),
    ],
)
def test_every_kind_of_line_reads_as_a_sentence(kind, payload, said):
    line = log.line_of(RunEvent(seq=1, kind=kind, payload=payload))

    assert (line.level, line.source, line.text) == said
