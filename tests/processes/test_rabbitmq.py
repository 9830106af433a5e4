"""RabbitMQ carries the messages as well: in a queue that outlives a host, and may be lost all the same."""

from __future__ import annotations

import pytest

from apps.events.models import Event
from apps.events.types import EventType
from apps.runs.fleet_models import WorkerNode
from apps.runs.models import Attempt, Run, RunLease
from apps.runs.services import submission
from apps.runs.types import RunState, TaskSpec
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.platform import SLOW, Platform, wait_for
from tests.support.rabbitmq import private_rabbitmq

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
def rabbit(tmp_path):
    folder = tmp_path / "rabbit"
    folder.mkdir()
    with private_rabbitmq(folder) as server:
        yield server


@pytest.fixture
def platform(transactional_db, tmp_path, rabbit):
    running = Platform(tmp_path, {"BROKER_URL": rabbit.url, "AOS_WORKER_TTL_SECONDS": "30"})
    yield running
    running.stop()
    print(running.logs())


@pytest.fixture
def scene(transactional_db):
    project = make_project()
    by = make_actor(organization=project.organization)
    return {"project": project, "by": by}


def _submit(scene, count):
    agent = make_agent(
        organization=scene["project"].organization, spec={"function": "aos.echo"}, kind="function"
    )
    submission.submit_many(**scene, agent=agent, tasks=[TaskSpec(input={})] * count)


def _all_ended():
    receipts = Event.objects.filter(type=EventType.RECEIPT).count()
    return not Run.objects.open().exists() and receipts == Run.objects.count()


def test_runs_travel_in_a_quorum_queue(platform, rabbit, scene):
    platform.engine()
    platform.worker()
    wait_for("a worker", WorkerNode.objects.exists)
    agent = make_agent(organization=scene["project"].organization, spec=SLOW)

    make_run(**scene, agent=agent, input={"seconds": 0.3})
    _submit(scene, 30)

    wait_for("all receipts", _all_ended)
    assert rabbit.is_quorum(platform.env["AOS_INSTANCE"] + ".runs")
    assert set(Run.objects.values_list("state", flat=True)) == {RunState.SUCCEEDED}
    assert set(Attempt.objects.values_list("number", flat=True)) == {1}


def test_nothing_is_lost_while_rabbitmq_is_killed_and_started_again(platform, rabbit, scene):
    platform.engine()
    platform.worker()
    wait_for("a worker", WorkerNode.objects.exists)
    _submit(scene, 20)
    wait_for("the first receipts", _all_ended)

    rabbit.kill()
    _submit(scene, 20)
    wait_for("the engine to notice", lambda: "wait for the broker" in platform.logs())
    rabbit.start()

    wait_for("all receipts", _all_ended, seconds=60)
    assert Run.objects.count() == 40
    assert not RunLease.objects.exists()
    # A message that was not sent costs no attempt.
    assert set(Attempt.objects.values_list("number", flat=True)) == {1}
