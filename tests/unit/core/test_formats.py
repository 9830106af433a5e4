from __future__ import annotations

from datetime import UTC, datetime

from django.template import Context, Template


def test_pages_that_do_not_say_how_write_times_with_24_hours_to_a_day():
    at = datetime(2026, 11, 21, 22, 5, tzinfo=UTC)

    assert Template("{{ at }}, {{ at.time }}").render(Context({"at": at})) == (
        "21 Nov 2026, 22:05, 22:05"
    )
