"""The tables that runs pass through are vacuumed by how many have passed, not by the clock."""

from __future__ import annotations

import pytest
from django.db import DatabaseError

from apps.core import sql
from apps.runs.services import dispatch
from tests.support.platform import wait_for
from workers.engine import vacuum
from workers.engine.vacuum import Vacuum

pytestmark = pytest.mark.django_db(transaction=True)


def times_vacuumed():
    (row,) = sql.fetch(
        "SELECT min(vacuum_count) AS times FROM pg_stat_user_tables WHERE relname = ANY(%(tables)s)",
        {"tables": ["runs_ready", "runs_lease", "events_outboxentry"]},
    )
    return row["times"]


@pytest.fixture
def vacuuming(monkeypatch):
    monkeypatch.setattr(vacuum, "PAUSE_S", 0)
    vacuuming = Vacuum(every=10)
    yield vacuuming
    vacuuming.stop()


def test_it_comes_with_a_new_leaders_first_run_and_then_each_time_so_many_have_passed(vacuuming):
    before = times_vacuumed()

    vacuuming.note(1)
    wait_for("the first vacuum", lambda: times_vacuumed() == before + 1)
    vacuuming.note(9)
    assert not vacuuming._due.is_set()
    vacuuming.note(1)

    wait_for("the second vacuum", lambda: times_vacuumed() == before + 2)


def test_one_that_fails_is_not_the_last(vacuuming, monkeypatch):
    failed = []

    def fail():
        failed.append(True)
        raise DatabaseError("away")

    before = times_vacuumed()
    with monkeypatch.context() as broken:
        broken.setattr(dispatch, "vacuum", fail)
        vacuuming.note(1)
        wait_for("the failure", lambda: failed)

    vacuuming.note(10)

    wait_for("the next", lambda: times_vacuumed() == before + 1)
