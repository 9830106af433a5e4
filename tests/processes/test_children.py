"""Runs that start runs and wait for them, with real engines and workers that are killed."""

from __future__ import annotations

import pytest

from apps.events.models import Event
from apps.events.types import EventType
from apps.runs.kin_models import ChildRun
from apps.runs.models import Run, RunLease
from apps.runs.services import control, submission
from apps.runs.types import RunState, TaskSpec
from tests.factories import make_actor, make_agent, make_project
from tests.support.platform import Platform, kill, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
def platform(transactional_db, tmp_path):
    names = "test.parent=tests.support.functions:parent"
    running = Platform(tmp_path, {"AOS_FUNCTIONS": names, "AOS_WORKER_SLOTS": "12"})
    yield running
    running.stop()
    print(running.logs())


@pytest.fixture
def tree():
    """A root that starts three children, each of which starts three."""
    project = make_project()
    spec = {"function": "test.parent", "retry": {"base_s": 0.1, "max_attempts": 9}}
    agent = make_agent(organization=project.organization, slug="parent", spec=spec, kind="function")
    by = make_actor(organization=project.organization)

    def submit(**given):
        task = {"agent": "parent", "width": 3, "depth": 2} | given
        return submission.submit(by=by, project=project, agent=agent, task=TaskSpec(input=task)).run

    return by, submit


def _state(run):
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)


def test_a_tree_of_runs_ends_with_each_child_once_although_a_worker_is_killed(platform, tree):
    _, submit = tree
    platform.engine()
    worker = platform.worker()
    root = submit(for_s=1.0)
    wait_for("all to be started", lambda: ChildRun.objects.count() == 12)

    kill(worker)
    platform.worker()

    wait_for("the end of the root", lambda: _state(root) == RunState.SUCCEEDED, seconds=90)
    assert Run.objects.get(pk=root.pk).result["facts"] == {"runs": 13}
    assert ChildRun.objects.filter(root=root).count() == 12
    assert set(Run.objects.values_list("state", flat=True)) == {RunState.SUCCEEDED}
    receipts = Event.objects.filter(type=EventType.RECEIPT)
    wait_for("the receipts", lambda: receipts.count() == 13)


@pytest.mark.parametrize("dead", [False, True], ids=["living workers", "dead workers"])
def test_cancelling_the_root_ends_all_generations_in_ten_seconds_or_so(platform, tree, dead):
    by, submit = tree
    platform.engine()
    worker = platform.worker()
    root = submit(for_s=600)
    leaves = Run.objects.filter(child_of__depth=2)
    wait_for("a leaf to run", lambda: leaves.filter(state="running").count() >= 5)
    if dead:
        kill(worker)

    control.cancel(by=by, run=root)

    # A second to reach all generations; then their workers stop them, or have ten seconds to answer.
    wait_for(
        "everybody to hear of it",
        lambda: not Run.objects.filter(state__in=["queued", "running"]).exists(),
        seconds=5,
    )
    if dead:
        wait_for("the end of all", lambda: not Run.objects.open().exists(), seconds=30)
        assert set(Run.objects.values_list("state", flat=True)) == {RunState.CANCELLED}
        assert not RunLease.objects.exists()
