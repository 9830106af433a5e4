"""The relay gives every event its place in its project's log, whatever happens around it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event as Flag
from uuid import uuid4

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from apps.core import sql
from apps.events import hints
from apps.events.models import Event, OutboxEntry, Stream
from apps.events.services import outbox, relay
from apps.events.types import EventType
from tests.events.cast import emit, log_of, move, publish, subject_of
from tests.factories import make_project
from tests.support.threads import apart, until_somebody_waits

pytestmark = pytest.mark.django_db(transaction=True)


class Crash(Exception):
    """Thrown where a process may die."""


@pytest.fixture
def told(monkeypatch):
    """The projects that hints were sent for."""
    sent: list[object] = []
    monkeypatch.setattr(hints, "send", lambda *, project_id: sent.append(project_id))
    return sent


def test_each_project_is_numbered_from_one_without_gaps():
    one, two = make_project(), make_project()
    for number in range(30):
        emit(one if number % 3 else two, n=number)

    moved = move()

    assert moved == 30
    assert [event.seq for event in log_of(one)] == list(range(1, 21))
    assert [event.seq for event in log_of(two)] == list(range(1, 11))
    assert [event.payload["n"] for event in log_of(two)] == list(range(0, 30, 3))
    assert Stream.objects.get(pk=one.pk).last_seq == 20


def test_an_event_keeps_all_it_was_written_with():
    project, run_id = make_project(), uuid4()
    emit(project, EventType.RECEIPT, run_id, title="Füße ☃", facts={"rows": 1})
    entry = OutboxEntry.objects.get()

    move()

    (event,) = log_of(project)
    written = {field.name for field in OutboxEntry._meta.fields} - {"id"}
    assert len(written) == 9
    for name in written:
        assert getattr(event, name) == getattr(entry, name)
    assert event.payload == {"title": "Füße ☃", "facts": {"rows": 1}}
    assert not OutboxEntry.objects.exists()


def test_a_batch_takes_the_oldest_and_says_how_many():
    project = make_project()
    for number in range(7):
        emit(project, n=number)

    taken = [move(limit=3) for _ in range(4)]

    assert taken == [3, 3, 1, 0]
    assert [event.payload["n"] for event in log_of(project)] == list(range(7))


def test_a_batch_is_one_statement_however_many_events_and_projects():
    for _ in range(5):
        publish_waiting(make_project(), 20)

    with (
        transaction.atomic(),
        CaptureQueriesContext(
            connection,
        ) as queries,
    ):
        relay.move()

    assert Event.objects.count() == 100
    assert len(queries) == 1


def publish_waiting(project, count):
    with transaction.atomic():
        for number in range(count):
            outbox.emit(EventType.MILESTONE, subject=subject_of(project), payload={"n": number})


def test_it_refuses_to_move_outside_the_leaders_transaction():
    with pytest.raises(sql.OutsideTransaction):
        relay.move()


def test_a_commit_sends_one_hint_for_each_project_that_grew(told):
    one, two, quiet = make_project(), make_project(), make_project()
    publish_waiting(one, 5)
    publish_waiting(two, 5)

    with transaction.atomic():
        relay.move()
        assert told == []

    assert sorted(told) == sorted([one.pk, two.pk])
    assert quiet.pk not in told


@pytest.mark.parametrize("step", ["before the move", "in the move", "after the move"])
def test_a_crash_before_the_commit_loses_and_doubles_nothing(step, told, monkeypatch):
    project = make_project()
    publish(project, 3)
    told.clear()
    publish_waiting(project, 4)

    with pytest.raises(Crash):
        crashing_move(step, monkeypatch)
    monkeypatch.undo()
    rescued = log_of(project)
    move()

    assert told == []
    assert len(rescued) == 3
    assert [event.seq for event in log_of(project)] == list(range(1, 8))
    assert len({event.event_id for event in log_of(project)}) == 7
    assert not OutboxEntry.objects.exists()


def crashing_move(step, monkeypatch):
    fetch = sql.fetch

    def dying(statement, params):
        fetch(statement, params)
        raise Crash

    with transaction.atomic():
        if step == "before the move":
            raise Crash
        if step == "in the move":
            monkeypatch.setattr(sql, "fetch", dying)
        relay.move()
        raise Crash


def test_a_crash_between_commit_and_hint_loses_and_doubles_nothing(monkeypatch):
    project = make_project()
    publish_waiting(project, 4)

    def dying(**_):
        raise Crash

    monkeypatch.setattr(hints, "send", dying)
    with pytest.raises(Crash):
        move()
    monkeypatch.undo()

    assert move() == 0
    assert [event.seq for event in log_of(project)] == [1, 2, 3, 4]


def test_a_relay_whose_database_session_dies_has_done_nothing():
    project = make_project()
    publish_waiting(project, 4)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(die_before_commit).result() == 4

    assert log_of(project) == []
    assert move() == 4
    assert [event.seq for event in log_of(project)] == [1, 2, 3, 4]


def die_before_commit():
    """Move, then lose the connection as with a killed process: there is no commit and no goodbye."""
    connection.set_autocommit(False)
    moved = relay_sql()
    connection.connection.close()
    connections.close_all()
    return moved


def relay_sql():
    return sum(row["taken"] for row in sql.fetch(relay.SQL["move"], {"limit": 500}))


def test_an_event_that_is_in_the_log_already_gets_no_second_number(caplog):
    project = make_project()
    publish(project, 2)
    again = log_of(project)[0]
    OutboxEntry.objects.create(
        event_id=again.event_id, organization_id=again.organization_id, project_id=project.pk,
        trace_id=again.trace_id, type=again.type, payload={},
    )  # fmt: skip
    emit(project, n=3)

    with caplog.at_level(logging.ERROR):
        taken = move()

    assert taken == 2
    assert [event.payload["n"] for event in log_of(project)] == [1, 2, 3]
    assert [event.seq for event in log_of(project)] == [1, 2, 3]
    assert caplog.records[0].event_ids == [str(again.event_id)]


def test_a_second_receipt_of_a_run_blocks_nobody(caplog):
    project, run_id = make_project(), uuid4()
    emit(project, EventType.RECEIPT, run_id, title="first")
    move()
    emit(project, EventType.RECEIPT, run_id, title="second")
    emit(project, n=1)

    with caplog.at_level(logging.ERROR):
        move()

    assert [event.payload.get("title") for event in log_of(project)] == ["first", None]
    assert [event.seq for event in log_of(project)] == [1, 2]
    assert not OutboxEntry.objects.exists()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("is_deposed", "left"), [(False, 3), (True, 6)])
def test_a_relay_waits_for_the_one_before_it_and_keeps_the_writers_order(is_deposed, left):
    """They meet when the leader's seat changes hands; a deposed leader's transaction fails."""
    project = make_project()
    publish_waiting(project, 6)
    holds, release = Flag(), Flag()

    def earlier():
        with transaction.atomic():
            relay.move(limit=3)
            holds.set()
            release.wait(10)
            transaction.set_rollback(is_deposed)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(apart, earlier)
        holds.wait(10)
        second = pool.submit(apart, move)
        until_somebody_waits()
        release.set()
        first.result()
        moved = second.result()
    move()

    assert moved == left
    assert [event.payload["n"] for event in log_of(project)] == list(range(6))


@contextmanager
def slow_writer(project):
    """Somebody who has written event 1, but commits when the function that this gives is called."""
    drawn, release = Flag(), Flag()

    def write():
        with transaction.atomic():
            outbox.emit(EventType.MILESTONE, subject=subject_of(project), payload={"n": 1})
            drawn.set()
            release.wait(10)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(apart, write)
        drawn.wait(10)

        def commit():
            release.set()
            writing.result()

        yield commit


def test_what_commits_late_is_lost_to_a_cursor_on_ids_and_not_to_the_relay():
    """Why the relay exists. The reader by id is the obvious one, and it loses an event for good."""
    project = make_project()
    by_id: list[int] = []
    cursor = 0

    def read_by_id():
        nonlocal cursor
        for entry in OutboxEntry.objects.filter(id__gt=cursor).order_by("id"):
            by_id.append(entry.payload["n"])
            cursor = entry.pk

    with slow_writer(project) as commit:
        emit(project, n=2)
        read_by_id()
        seen_early = list(by_id)
        commit()
        read_by_id()
    late = OutboxEntry.objects.order_by("id").first()
    move()

    assert late.payload["n"] == 1
    assert seen_early == by_id == [2]
    assert sorted(event.payload["n"] for event in log_of(project)) == [1, 2]


def test_the_relay_numbers_late_events_behind_those_that_were_seen_before_them():
    project = make_project()
    with slow_writer(project) as commit:
        emit(project, n=2)
        move()
        commit()
        move()

    assert [(event.seq, event.payload["n"]) for event in log_of(project)] == [(1, 2), (2, 1)]
