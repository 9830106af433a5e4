"""Ends handed over: written at once or together, held until they are written, each for itself when one breaks."""

from __future__ import annotations

import threading
from queue import Queue

import pytest
from django.db import DatabaseError

from apps.runs.services import leases
from apps.runs.types import Lease, Report, RunState
from workers import finisher as finisher_module
from workers.finisher import Finisher
from workers.node import Task


class Database:
    """Writes ends when it is let go; refuses those of some runs, and says that some leases are gone."""

    def __init__(self):
        self.written = []
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.refused = set()
        self.gone = set()

    def finish(self, reports):
        self.begun.release()
        assert self.let_go.acquire(timeout=10)
        runs = [report.lease.run_id for report in reports]
        self.written.append(runs)
        if self.refused & set(runs):
            raise DatabaseError("refused")
        return frozenset(each.lease for each in reports if each.lease.run_id not in self.gone)


@pytest.fixture
def database(monkeypatch):
    database = Database()
    monkeypatch.setattr(leases, "finish", database.finish)
    return database


@pytest.fixture
def finisher():
    return Finisher()


@pytest.fixture
def told():
    return Queue()


@pytest.fixture
def put(finisher, told):
    def put(run_id):
        lease = Lease(run_id=run_id, token=run_id)
        report = Report(lease=lease, state=RunState.SUCCEEDED, after=0, result={}, lines=())
        finisher.put(Task(lease, log=None), report, lambda ours: told.put((run_id, lease in ours)))

    return put


def answers(told, number):
    return sorted(told.get(timeout=10) for _ in range(number))


def test_an_end_after_a_pause_is_written_at_once_and_under_load_they_gather(
    put, database, told, monkeypatch
):
    monkeypatch.setattr(finisher_module, "_APART_S", 0.5)
    database.let_go.release(2)

    put(1)
    assert answers(told, 1) == [(1, True)]
    for number in (2, 3, 4):
        put(number)

    assert answers(told, 3) == [(2, True), (3, True), (4, True)]
    assert database.written == [[1], [2, 3, 4]]


def test_an_end_alone_is_written_at_once(put, database, told):
    database.let_go.release(2)

    put(1)
    assert answers(told, 1) == [(1, True)]
    put(2)
    assert answers(told, 1) == [(2, True)]

    assert database.written == [[1], [2]]


def test_who_hands_an_end_over_does_not_wait_and_what_gathers_is_written_together(
    put, database, told
):
    put(1)
    assert database.begun.acquire(timeout=10)

    for number in range(2, 60):
        put(number)
    database.let_go.release(3)

    assert answers(told, 59) == [(number, True) for number in range(1, 60)]
    assert [len(runs) for runs in database.written] == [1, 50, 8]


def test_a_run_is_held_until_its_end_is_written(put, database, finisher):
    put(1)
    assert database.begun.acquire(timeout=10)

    assert [task.lease.run_id for task in finisher.held()] == [1]
    assert not finisher.wait(0.01)
    database.let_go.release()
    assert finisher.wait(10)
    assert finisher.held() == []


def test_an_end_that_is_refused_costs_the_others_nothing(put, database, told, finisher):
    database.refused = {3}
    put(1)
    assert database.begun.acquire(timeout=10)
    for number in (2, 3, 4):
        put(number)
    database.let_go.release(10)

    assert answers(told, 4) == [(1, True), (2, True), (3, False), (4, True)]
    assert database.written == [[1], [2, 3, 4], [2], [3], [4]]
    assert finisher.wait(10)


def test_an_end_that_is_refused_alone_is_let_go_and_the_next_is_written(
    put, database, told, finisher
):
    database.refused = {1}
    database.let_go.release(2)

    put(1)
    assert finisher.wait(10)
    put(2)

    assert answers(told, 1) == [(2, True)]


def test_a_lease_that_is_gone_is_told_so(put, database, told):
    database.gone = {1}
    database.let_go.release()

    put(1)

    assert answers(told, 1) == [(1, False)]


def test_no_more_is_taken_than_can_be_written(put, database, told):
    put(0)
    assert database.begun.acquire(timeout=10)
    for number in range(1, 101):
        put(number)
    extra = threading.Thread(target=put, args=[101])

    extra.start()
    extra.join(0.1)
    assert extra.is_alive()
    database.let_go.release(10)

    extra.join(10)
    assert len(answers(told, 102)) == 102
