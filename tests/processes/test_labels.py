"""Real workers with labels and versions: each run is executed by one that has what it requires."""

from __future__ import annotations

import signal
from collections import defaultdict

import pytest

from apps.events.models import Event
from apps.events.types import EventType
from apps.runs.fleet_models import WorkerNode
from apps.runs.models import Attempt, Run
from apps.runs.services import queues, submission
from apps.runs.types import RunState, TaskSpec
from tests.factories import make_actor, make_agent, make_project
from tests.support.platform import Platform, kill, wait_for
from tests.support.rabbitmq import private_rabbitmq

pytestmark = [pytest.mark.processes, pytest.mark.slow]
NAMES = {"AOS_FUNCTIONS": "test.slow=tests.support.functions:slow"}
GPU = {"gpu": "true"}
OLD, NEW = {"version": "1.0"}, {"version": "2.0"}


@pytest.fixture(params=["redis", "rabbitmq"])
def platform(request, transactional_db, tmp_path):
    """The same on both brokers."""
    running = Platform(tmp_path, NAMES | {"AOS_WORKER_TTL_SECONDS": "30"})
    if request.param == "redis":
        yield running
        running.stop()
        print(running.logs())
        return
    folder = tmp_path / "rabbit"
    folder.mkdir()
    with private_rabbitmq(folder) as rabbit:
        running.overrides["BROKER_URL"] = rabbit.url
        yield running
        running.stop()
        print(running.logs())


@pytest.fixture
def submit(transactional_db):
    project = make_project()
    by = make_actor(organization=project.organization)
    agent = make_agent(
        organization=project.organization, spec={"function": "test.slow"}, kind="function"
    )

    def many(count, requires=None, for_s=0.05):
        task = TaskSpec(input={"for_s": for_s}, requires=requires or {})
        runs = submission.submit_many(by=by, project=project, agent=agent, tasks=[task] * count)
        return [run.pk for run in runs]

    return many


def all_ended():
    receipts = Event.objects.filter(type=EventType.RECEIPT).count()
    return not Run.objects.open().exists() and receipts == Run.objects.count()


def executed_by():
    """Which workers executed each run, in the order of its attempts."""
    found = defaultdict(list)
    for run, worker in Attempt.objects.order_by("number").values_list("run", "worker_name"):
        found[run].append(worker.partition("@")[0])
    return found


def workers(count):
    wait_for("the workers", lambda: WorkerNode.objects.filter(gone_at=None).count() == count)


def test_a_run_is_executed_by_a_worker_that_has_what_it_requires(platform, submit):
    platform.engine()
    platform.worker("plain")
    workers(1)
    special, common = submit(6, GPU), submit(6)
    wait_for("those that any worker may take", lambda: len(executed_by()) == 6)
    waiting = Run.objects.get(pk=special[0])
    assert queues.why_waiting(waiting) == "No worker has gpu=true, which it requires."

    platform.worker("able", AOS_WORKER_LABELS="gpu=true,zone=eu")

    wait_for("all receipts", all_ended, seconds=60)
    found = executed_by()
    assert {tuple(found[run]) for run in special} == {("able",)}
    assert {tuple(found[run]) for run in common} == {("plain",)}


def test_a_rolling_upgrade_runs_each_pinned_run_on_its_code_and_loses_no_attempt(platform, submit):
    """Two old workers become new ones, one after the other, while runs of both versions go on."""
    platform.overrides["AOS_DRAIN_SECONDS"] = "10"
    platform.engine()
    first, second = (platform.worker(name, AOS_WORKER_VERSION="1.0") for name in ("a1", "b1"))
    workers(2)
    old, any_of_them = submit(40, OLD, for_s=0.2), submit(40, for_s=0.2)
    new = submit(20, NEW, for_s=0.2)
    wait_for("some to be under way", lambda: len(executed_by()) > 5)
    assert not set(new) & set(executed_by())

    kill(first, signal.SIGTERM)
    assert first.wait(30) == 0
    platform.worker("a2", AOS_WORKER_VERSION="2.0")
    wait_for("the new code to be used", lambda: set(new) & set(executed_by()))
    wait_for("the old code to be done", lambda: set(old) <= set(_succeeded()), seconds=60)
    kill(second, signal.SIGTERM)
    assert second.wait(30) == 0
    platform.worker("b2", AOS_WORKER_VERSION="2.0")

    wait_for("all receipts", all_ended, seconds=60)
    found = executed_by()
    assert {worker for run in old for worker in found[run]} <= {"a1", "b1"}
    assert {worker for run in new for worker in found[run]} <= {"a2", "b2"}
    assert {run: len(found[run]) for run in [*old, *new, *any_of_them]} == dict.fromkeys(
        [*old, *new, *any_of_them], 1
    )
    late = Run.objects.get(pk=submit(1, OLD)[0])
    assert queues.why_waiting(late) == "No worker has version=1.0, which it requires."


def _succeeded():
    return Run.objects.filter(state=RunState.SUCCEEDED).values_list("pk", flat=True)
