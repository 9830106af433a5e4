"""At every step of a run's path: the process crashes, stalls past its lease, or finds the database away.

Whatever was half done is done again by somebody, and whoever wakes too late changes nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from apps.core.failpoints import Action, Place
from apps.runs.models import Attempt, Run
from tests.chaos import reckoning
from tests.chaos.reckoning import Watch
from tests.chaos.workload import client
from tests.support.platform import wait_for
from tests.support.servers import PROJECT

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# Between the claim of a lease and its end: who crashes or stalls here has lost the run.
HOLDING = {
    Place.STARTED,
    Place.SANDBOX_READY,
    Place.LOGGING,
    Place.WORKED,
    Place.FAILING,
    Place.FINISHING,
}
# Those of snapshots lie on another way: tests/processes/test_put_away.py.
ON_THE_WAY = [
    place for place in Place if place is not Place.STORED and not place.startswith("snapshot.")
]
# One of each kind of process and act, for every day; the rest is for ``make proof``.
SHORT = [
    (Place.CLAIMED, Action.CRASH),
    (Place.STARTED, Action.CRASH),
    (Place.FINISHING, Action.STALL),
    (Place.FAILING, Action.STALL),
    (Place.FINISHED, Action.ERROR),
]
REJECTED = re.compile(r"leases? lost|another process has taken this worker's name")


def test_a_process_struck_at_a_step_costs_no_run_and_no_second_receipt(arena):
    _strike_at(arena, SHORT)


@pytest.mark.proof
@pytest.mark.parametrize("action", Action)
def test_a_process_struck_at_any_step_costs_no_run_and_no_second_receipt(arena, action):
    _strike_at(arena, [(place, action) for place in ON_THE_WAY])


def _strike_at(arena, cases):
    ours = client(arena.dice)
    arena.man(engines=2, workers=2)
    for place, action in cases:
        before = Attempt.objects.filter(outcome="lost").count()
        arena.disarm()
        if place is Place.RECLAIMING:
            arena.arm(Place.STARTED, Action.CRASH)  # so that there is something to reclaim
        arena.arm(place, action)
        ours.submit_each_kind()
        took = _until_all_is_over(arena, place)

        assert reckoning.broken() == {}, (place, action)
        assert reckoning.lost(ours.accepted) == set(), (place, action)
        if place in HOLDING and action is not Action.ERROR:
            lost = Attempt.objects.filter(outcome="lost").count()
            assert lost > before, (place, action)
            if action is Action.STALL:
                assert REJECTED.search(_log_of(arena, place)), (place, action)
        print(f"{place} {action}: over after {took:.1f} s")


def _until_all_is_over(arena, place):
    """Also until whoever stalls has woken, and has tried what it was about to do."""
    watch = Watch()
    began = time.monotonic()
    while True:
        arena.keep()
        is_over = not watch.look() and not reckoning.broken()
        if is_over and arena.was_hit(place) and all(post.is_up for post in arena.posts):
            return time.monotonic() - began
        assert time.monotonic() - began < 60, f"{place}: {reckoning.broken()}"
        time.sleep(0.1)


def _log_of(arena, place):
    """What the worker that stalled has said since, once it has said it."""
    return wait_for(
        "a word about the lost lease",
        lambda: (text := arena.words_of(arena.struck(place))) and REJECTED.search(text) and text,
    )


def test_a_submission_struck_before_its_commit_is_made_once_by_its_repetition(arena):
    for action in Action:
        ours = client(arena.dice)
        arena.disarm()
        arena.arm(Place.STORED, action)
        argv = [sys.executable, "-m", "tests.chaos.submitter"]
        argv += [str(each.pk) for each in (ours.by.user, ours.project, ours.functions)] + ["key-1"]

        first = arena.spawn(argv)
        wait_for("the strike", lambda: arena.was_hit(Place.STORED))
        if action is Action.STALL:
            # Busy as long as the first may still commit.
            assert _ask(arena, argv).returncode == 3
            arena.wake(first)
        assert (first.wait(30) == 0) is (action is Action.STALL)
        assert Run.objects.filter(project=ours.project).exists() is (action is Action.STALL)
        again = _ask(arena, argv)

        assert again.returncode == 0, again.stderr
        assert int(again.stdout) == Run.objects.get(project=ours.project).pk


def _ask(arena, argv):
    env = arena.platform.env
    return subprocess.run(argv, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
