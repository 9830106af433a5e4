"""When a schedule is due: cron expressions in a time zone.

The evaluation is cronsim's, which follows Debian cron where clocks are turned: a time that is skipped
in spring happens when the gap is over, one that comes twice in autumn happens once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from apps.core.errors import Invalid


def check(expression: str, zone: str, *, after: datetime) -> None:
    """Raise ``Invalid`` unless the expression has five fields, the zone a name, and a time comes."""
    if zone not in available_timezones():
        raise Invalid([{"field": "timezone", "rule": "must be a name such as Europe/Athens"}])
    if why := _fault(expression, zone, after=after):
        rule = f"must be minute, hour, day, month and weekday, such as 0 7 * * MON-FRI: {why}"
        raise Invalid([{"field": "cron", "rule": rule}])


def _fault(expression: str, zone: str, *, after: datetime) -> str:
    if len(expression.split()) != 5:
        return "it has not five fields"
    try:
        comes = upcoming(expression, zone, after=after, count=1)
    except CronSimError as error:
        return str(error)
    return "" if comes else "no such time comes in the next 50 years"


def following(expression: str, zone: str, *, after: datetime) -> datetime:
    """The first time it is due strictly after a moment; in UTC. The expression is a checked one."""
    return next(_times(expression, zone, after=after))


def upcoming(expression: str, zone: str, *, after: datetime, count: int) -> list[datetime]:
    """The next ``count`` times; in UTC."""
    return list(islice(_times(expression, zone, after=after), count))


def latest(expression: str, zone: str, *, until: datetime) -> datetime:
    """The last time it was due, up to and including a moment; in UTC."""
    there = (until + timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    times = (moment.astimezone(UTC) for moment in CronSim(expression, there, reverse=True))
    return next(moment for moment in times if moment <= until)


def in_words(expression: str) -> str:
    """The expression as an English sentence."""
    return CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)).explain()


def _times(expression: str, zone: str, *, after: datetime) -> Iterator[datetime]:
    """Due times, growing. cronsim can name a moment twice, or one before ``after``, in the hour that
    comes twice; those are left out."""
    last = after
    for moment in CronSim(expression, after.astimezone(ZoneInfo(zone))):
        if moment.astimezone(UTC) > last:
            last = moment.astimezone(UTC)
            yield last
