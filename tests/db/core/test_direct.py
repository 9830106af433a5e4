"""A thread's own line: statements commit by themselves or together, and what waits for a commit waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from django.db import IntegrityError, connection

from apps.core import sql
from apps.core.postgres import direct
from tests.support.platform import wait_for
from tests.support.threads import apart
from workers.insist import insist

pytestmark = pytest.mark.django_db(transaction=True)
ADD = "INSERT INTO line_notes (number) VALUES (%(number)s)"


@pytest.fixture(autouse=True)
def _notes():
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE line_notes (number int PRIMARY KEY)")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE line_notes")


@pytest.fixture
def line():
    with direct.line():
        yield
        direct.close()


def add(number):
    direct.execute(ADD, {"number": number})


def seen_by_others():
    """What another connection sees: what is committed."""
    with ThreadPoolExecutor(1) as pool:
        look = partial(sql.fetch, "SELECT number FROM line_notes ORDER BY 1", {})
        return [row["number"] for row in pool.submit(apart, look).result()]


def others_see(pid):
    with ThreadPoolExecutor(1) as pool:
        ask = "SELECT FROM pg_stat_activity WHERE pid = %(pid)s"
        return pool.submit(apart, partial(sql.fetch, ask, {"pid": pid})).result()


def test_a_statement_commits_by_itself(line):
    add(1)

    assert seen_by_others() == [1]


@pytest.mark.parametrize("has_line", [True, False])
def test_statements_of_a_block_commit_together(has_line, request):
    if has_line:
        request.getfixturevalue("line")

    with direct.atomic():
        add(1)
        add(2)
        assert seen_by_others() == []

    assert seen_by_others() == [1, 2]


@pytest.mark.parametrize("has_line", [True, False])
def test_who_stood_still_in_a_block_until_postgres_ended_it_says_it_again(
    has_line, request, settings
):
    """Also past the time a worker waits for its database: nobody else knows whether its lease is lost."""
    settings.AOS_SELF_FENCE = timedelta(milliseconds=100)
    if has_line:
        request.getfixturevalue("line")
    tries = []

    def stand_still_once():
        with direct.atomic():
            add(len(tries))
            tries.append("one")
            if len(tries) == 1:
                ours = direct.fetch("SELECT pg_backend_pid() AS pid", {})[0]["pid"]
                direct.execute("SET LOCAL idle_in_transaction_session_timeout = '200ms'", {})
                wait_for("PostgreSQL to end the session", lambda: not others_see(ours))
            add(10)

    insist(stand_still_once)

    assert seen_by_others() == [1, 10]


def test_a_block_that_fails_leaves_nothing_and_the_line_goes_on(line):
    told = []

    with suppress(IntegrityError), direct.atomic():
        add(1)
        direct.on_commit(lambda: told.append("too early"))
        add(1)
    add(3)

    assert seen_by_others() == [3]
    assert told == []


def test_what_waits_for_the_commit_of_a_block_comes_after_it(line):
    told = []

    with direct.atomic():
        add(1)
        direct.on_commit(lambda: told.extend(seen_by_others()))
        assert told == []

    assert told == [1]


def test_what_waits_for_a_commit_happens_at_once_after_a_statement_that_commits_by_itself(line):
    told = []
    add(1)

    direct.on_commit(lambda: told.extend(seen_by_others()))

    assert told == [1]


def test_outside_a_block_there_is_no_transaction(line):
    with pytest.raises(sql.OutsideTransaction):
        direct.require_transaction("an act")
    with direct.atomic():
        direct.require_transaction("an act")


def test_an_open_block_of_a_stalled_process_is_ended_by_the_database(line):
    (row,) = direct.fetch("SHOW idle_in_transaction_session_timeout", {})

    assert row["idle_in_transaction_session_timeout"] == "2s"
