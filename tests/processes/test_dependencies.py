"""A graph of runs ends as it must, whoever dies on the way."""

from __future__ import annotations

import pytest

from apps.events.models import Event
from apps.events.types import EventType
from apps.runs.models import Attempt, Dependency, Run, WaitingRun
from apps.runs.services import submission
from apps.runs.services.submission import Wanted
from apps.runs.types import Need, RunState, TaskSpec
from tests.factories import make_actor, make_agent, make_project
from tests.support.platform import kill, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]
WIDTH, DEPTH = 10, 12


def _graph(project, agent):
    """Layers of runs, each of which waits for all of the layer before."""
    for place in range(WIDTH * DEPTH):
        layer = place // WIDTH
        earlier = range((layer - 1) * WIDTH, layer * WIDTH) if layer else ()
        needs = tuple(Need(item=item) for item in earlier)
        yield Wanted(project=project, agent=agent, task=TaskSpec(input={}, depends_on=needs))


def test_a_graph_ends_in_its_order_although_engine_and_worker_are_killed(platform):
    project = make_project()
    agent = make_agent(
        organization=project.organization, spec={"function": "aos.echo"}, kind="function"
    )
    told = submission.submit_bulk(
        by=make_actor(organization=project.organization),
        wanted=list(_graph(project, agent)),
        key="a-graph-of-some-layers",
        body="graph",
    )
    assert all(verdict.run_id for verdict in told.verdicts)
    assert WaitingRun.objects.count() == WIDTH * (DEPTH - 1)
    engine, worker = platform.engine(), platform.worker()
    wait_for("a part of it to end", lambda: Run.objects.filter(state="succeeded").count() > WIDTH)

    kill(worker)
    kill(engine)
    platform.engine()
    platform.worker()

    ended = Run.objects.filter(state=RunState.SUCCEEDED)
    wait_for("the end of all", lambda: ended.count() == WIDTH * DEPTH, seconds=90)
    assert not WaitingRun.objects.exists()
    receipts = Event.objects.filter(type=EventType.RECEIPT)
    wait_for("the receipts", lambda: receipts.count() == WIDTH * DEPTH)
    starts = dict(Attempt.objects.order_by("-number").values_list("run", "started_at"))
    ends = dict(Run.objects.values_list("pk", "finished_at"))
    early = [
        (run, on)
        for run, on in Dependency.objects.values_list("run", "on")
        if starts[run] < ends[on]
    ]
    assert early == []
