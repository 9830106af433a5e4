"""The months of the runs' log: made ahead, and dropped when the policy says so.

The log lies in a table for each month, so what is old goes at once and leaves nothing to clean up. The
functions that know the tables are in the migration ``monthly_logs``. Runs, attempts, receipts, the value
events of projects and the audit log are not touched.
"""

from __future__ import annotations

import logging
from datetime import date, datetime
from typing import Final

from django.conf import settings
from django.db import OperationalError, transaction
from psycopg.errors import LockNotAvailable

from apps.core import clock, sql
from apps.runs.services import leadership
from apps.runs.services.leadership import Seat

logger = logging.getLogger(__name__)

SQL: Final = sql.load("apps.runs.sql", "retention.sql")
# Beyond the month we are in. An engine that is away for longer costs nothing: lines then wait in the rest.
AHEAD: Final = 2


def keep(seat: Seat) -> int:
    """Make the months that come and drop those that are past; return how many tables that were.

    Waits for nobody: a table that somebody reads for long is dropped another time.
    """
    done = 0
    try:
        for month in _coming(clock.now()):
            done += _make(seat, month)
        for name in _past(clock.now()):
            _drop(seat, name)
            done += 1
        _clear_rest(seat)
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        logger.info("a month of the log is in use, tried again later")
    return done


def _coming(now: datetime) -> list[date]:
    return [_month(now, ahead) for ahead in range(AHEAD + 1)]


def _past(now: datetime) -> list[str]:
    """The tables that end before the oldest month that is kept."""
    if not settings.AOS_RUN_LOG_MONTHS:
        return []
    return [row["month"] for row in sql.fetch(SQL["past"], {"cutoff": _cutoff(now)})]


def _cutoff(now: datetime) -> date:
    return _month(now, -settings.AOS_RUN_LOG_MONTHS)


def _month(now: datetime, ahead: int) -> date:
    """The first day of the month that is so many after the one we are in."""
    count = now.year * 12 + now.month - 1 + ahead
    return date(count // 12, count % 12 + 1, 1)


@transaction.atomic
def _make(seat: Seat, month: date) -> bool:
    leadership.require(seat)
    sql.execute(SQL["bound"], {})
    (row,) = sql.fetch(SQL["make"], {"month": month})
    return bool(row["made"])


@transaction.atomic
def _drop(seat: Seat, name: str) -> None:
    leadership.require(seat)
    sql.execute(SQL["bound"], {})
    (row,) = sql.fetch(SQL["drop"], {"month": name})
    extra = {"month": name, "lines_of_open_runs": row["kept"]}
    logger.warning("a month of the runs' log was dropped", extra=extra)


@transaction.atomic
def _clear_rest(seat: Seat) -> None:
    """Lines that were kept because their run was open, once it is over."""
    if settings.AOS_RUN_LOG_MONTHS:
        leadership.require(seat)
        sql.execute(SQL["clear_rest"], {"cutoff": _cutoff(clock.now())})
