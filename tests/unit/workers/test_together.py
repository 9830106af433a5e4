"""Calls that are joined: each caller has its own answer, whoever called for it and whatever failed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError

from workers.together import Together


class Act:
    """Squares what it is given, and holds each call until it is let go."""

    def __init__(self, *, refuses=()):
        self.calls = []
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self._refuses = set(refuses)

    def __call__(self, items):
        self.calls.append(list(items))
        self.begun.release()
        assert self.let_go.acquire(timeout=10)
        if self._refuses & set(items):
            raise DatabaseError(f"refused {sorted(self._refuses & set(items))}")
        return [item * item for item in items]


def wait_for_waiting(together, number):
    """Until so many wait for the call that is under way."""
    while len(together._waiting) < number:
        threading.Event().wait(0.001)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(60) as threads:
        yield threads


def during_a_call(pool, act, items):
    """One call under way, all these items waiting behind it; returns the answers to come."""
    together = Together(act)
    first = pool.submit(together, 0)
    assert act.begun.acquire(timeout=10)
    behind = [pool.submit(together, item) for item in items]
    wait_for_waiting(together, len(items))
    return together, first, behind


def test_who_comes_alone_is_served_at_once(pool):
    act = Act()
    act.let_go.release(2)
    together = Together(act)

    assert [together(3), together(4)] == [9, 16]
    assert act.calls == [[3], [4]]


def test_who_waits_behind_a_call_shares_the_next_and_gets_its_own_answer(pool):
    act = Act()
    _, first, behind = during_a_call(pool, act, range(1, 11))

    act.let_go.release(2)

    assert first.result(10) == 0
    assert [each.result(10) for each in behind] == [item * item for item in range(1, 11)]
    assert [len(call) for call in act.calls] == [1, 10]


def test_one_call_takes_fifty_at_most_and_the_rest_have_the_next(pool):
    act = Act()
    _, _, behind = during_a_call(pool, act, range(1, 57))

    act.let_go.release(3)

    assert [each.result(10) for each in behind] == [item * item for item in range(1, 57)]
    assert [len(call) for call in act.calls] == [1, 50, 6]


def test_what_is_wrong_with_one_harms_no_other(pool):
    act = Act(refuses=[2])
    together, _, behind = during_a_call(pool, act, [1, 2, 3])

    act.let_go.release(10)

    assert [behind[0].result(10), behind[2].result(10)] == [1, 9]
    with pytest.raises(DatabaseError, match=r"refused \[2\]"):
        behind[1].result(10)
    assert together(5) == 25


def test_an_error_of_a_call_alone_is_its_callers_and_the_next_goes_on(pool):
    act = Act(refuses=[0])
    _, first, behind = during_a_call(pool, act, [1])

    act.let_go.release(2)

    with pytest.raises(DatabaseError):
        first.result(10)
    assert behind[0].result(10) == 1
