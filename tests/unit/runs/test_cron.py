from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.runs import cron

ATHENS = "Europe/Athens"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def test_times_are_read_in_the_zone():
    times = cron.upcoming("0 7 * * MON-FRI", ATHENS, after=NOW, count=3)

    # The 21st is a Saturday; Athens is two hours ahead in winter.
    assert times == [utc(2026, 11, 23, 5), utc(2026, 11, 24, 5), utc(2026, 11, 25, 5)]


def test_a_time_that_the_clocks_leave_out_comes_when_the_gap_is_over():
    times = cron.upcoming("30 3 * * *", ATHENS, after=utc(2026, 3, 28, 12), count=2)

    # 03:30 does not exist on the 29th: at 03:00 it becomes 04:00.
    assert times == [utc(2026, 3, 29, 1, 0), utc(2026, 3, 30, 0, 30)]


@pytest.mark.parametrize("after", [utc(2026, 10, 24, 12), utc(2026, 10, 25, 0, 30)])
def test_a_time_that_comes_twice_counts_once(after):
    times = cron.upcoming("30 3 * * *", ATHENS, after=after, count=2)

    first = [utc(2026, 10, 25, 0, 30)] if after < utc(2026, 10, 25, 0, 30) else []
    assert times[: len(first) + 1] == [*first, utc(2026, 10, 26, 1, 30)]


def test_asked_from_within_the_second_of_the_two_hours_it_does_not_go_back():
    # 03:10 for the second time; 03:30 of the first was twenty minutes before.
    assert cron.following("30 3 * * *", ATHENS, after=utc(2026, 10, 25, 1, 10)) == utc(
        2026, 10, 26, 1, 30
    )


def test_intervals_follow_the_real_time_through_the_change():
    times = cron.upcoming("*/30 * * * *", ATHENS, after=utc(2026, 10, 25, 0, 0), count=6)

    assert {later - sooner for sooner, later in pairwise(times)} == {timedelta(minutes=30)}


@pytest.mark.parametrize(
    ("expression", "zone", "field"),
    [
        ("* * * *", "UTC", "cron"),
        ("0 * * * * *", "UTC", "cron"),
        ("61 * * * *", "UTC", "cron"),
        ("0 0 30 2 *", "UTC", "cron"),
        ("0 0 31 2,4 *", "UTC", "cron"),
        ("@daily", "UTC", "cron"),
        ("0 7 * * MO", "UTC", "cron"),
        ("", "UTC", "cron"),
        ("0 7 * * *", "Mars/Olympus", "timezone"),
        ("0 7 * * *", "", "timezone"),
        ("0 7 * * *", "../../etc/passwd", "timezone"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(expression, zone, field):
    with pytest.raises(Invalid) as refused:
        cron.check(expression, zone, after=NOW)

    assert refused.value.errors[0]["field"] == field


def test_it_can_be_said_in_words():
    assert cron.in_words("0 7 * * MON-FRI") == "At 07:00 on Monday through Friday"


ZONES = st.sampled_from(
    [ATHENS, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
)
EXPRESSIONS = st.sampled_from(
    [
        "* * * * *",
        "*/15 * * * *",
        "30 2 * * *",
        "0 3 * * SUN",
        "5 0 1 * *",
        "0 12 L * *",
        "30 1,2 * * *",
    ]
)
MOMENTS = st.integers(0, 2 * 365 * 24 * 3600).map(lambda s: utc(2025, 1, 1) + timedelta(seconds=s))


@given(EXPRESSIONS, ZONES, MOMENTS)
def test_times_only_grow_and_the_latest_is_one_of_them(expression, zone, moment):
    times = cron.upcoming(expression, zone, after=moment, count=20)

    assert times == sorted(set(times))
    assert times[0] > moment.replace(microsecond=0)
    assert cron.latest(expression, zone, until=times[3]) == times[3]
    assert cron.following(expression, zone, after=times[3]) == times[4]
    assert all(time.astimezone(ZoneInfo(zone)).second == 0 for time in times)
