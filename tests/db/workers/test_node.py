"""The heart of a worker beats on, whatever is away when it carries out an order."""

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError

from apps.runs.services import fleet
from apps.runs.types import Lease
from tests.support.platform import wait_for
from workers.node import Node, Stop, Task
from workers.sandbox.errors import SandboxUnavailable

pytestmark = pytest.mark.django_db
LEASE = Lease(run_id=1, token=1)


class Engine:
    """Ends a sandbox, once it is there."""

    def __init__(self):
        self.is_away = True
        self.asked = self.ended = 0

    def kill(self):
        self.asked += 1
        if self.is_away:
            raise SandboxUnavailable(driver="docker", detail="no engine.")
        self.ended += 1


class HungEngine:
    """Takes an order, and does not answer before it is released."""

    def __init__(self):
        self.released = threading.Event()
        self.has_answered = False

    def kill(self):
        self.released.wait(20)
        self.has_answered = True


def beat(node):
    """Beat, and let what that ordered come to its end."""
    node.beat()
    for thread in threading.enumerate():
        if thread.name == "end":
            thread.join(20)


@pytest.fixture
def node():
    return Node("w1@test", slots=2)


def test_what_cannot_be_ended_while_the_engine_is_away_is_ended_by_a_later_beat(node, caplog):
    engine, task = Engine(), Task(LEASE, log=None)
    task.on_stop(engine.kill)

    # Nobody knows this lease any more, so each beat orders its end.
    with node.holding([task]):
        beat(node)
        beat(node)
        engine.is_away = False
        beat(node)
        beat(node)

    assert task.stopped is Stop.LOST
    assert (engine.asked, engine.ended) == (3, 1)
    assert caplog.text.count("cannot be ended yet") == 1


def test_an_engine_that_hangs_holds_up_neither_the_heart_nor_other_ends(node):
    hung, engine = HungEngine(), Engine()
    engine.is_away = False
    tasks = [Task(LEASE, log=None), Task(Lease(run_id=2, token=2), log=None)]
    for task, kill in zip(tasks, (hung.kill, engine.kill), strict=True):
        task.on_stop(kill)

    with node.holding(tasks):
        node.beat()
        wait_for("the other's end", lambda: engine.ended)
        node.beat()
        assert not hung.has_answered
        hung.released.set()
        wait_for("its end", lambda: hung.has_answered)

    assert engine.asked == 1


def test_a_database_that_goes_away_in_the_middle_of_a_beat_costs_this_beat(node, monkeypatch):
    given_up, is_away = [], True

    def disown(*, worker_id, leases):
        if is_away:
            raise OperationalError("the connection is closed")
        given_up.extend(leases)

    ours = fleet.Orders(
        superseded=False,
        draining=True,
        unread=False,
        held=frozenset({LEASE}),
        cancelled=frozenset(),
    )
    monkeypatch.setattr(fleet, "beat", lambda **_: ours)
    monkeypatch.setattr(fleet, "disown", disown)

    node.beat()
    node.beat()
    is_away = False
    node.beat()

    assert given_up == [LEASE]
