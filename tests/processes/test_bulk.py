"""An act on many runs is finished by whoever leads, and touches each run once."""

from __future__ import annotations

import pytest

from apps.events.models import AuditEntry, Event
from apps.events.types import EventType
from apps.runs.models import BulkAct, Run
from apps.runs.services import submission
from apps.runs.types import BulkState, BulkVerb, RunState, TaskSpec
from tests.factories import make_actor, make_agent, make_bulk_act, make_project
from tests.support.platform import kill, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]
RUNS = 3000


def _treated():
    act = BulkAct.objects.get()
    return act.done + act.refused


def test_an_act_survives_the_death_of_the_engine_at_work_on_it(platform):
    project = make_project()
    agent = make_agent(
        organization=project.organization, spec={"function": "aos.echo"}, kind="function"
    )
    by = make_actor(organization=project.organization)
    submission.submit_many(by=by, project=project, agent=agent, tasks=[TaskSpec(input={})] * RUNS)
    # No worker: the runs wait until the act comes to them.
    first = platform.engine()
    make_bulk_act(by=by, verb=BulkVerb.CANCEL, project=project)
    wait_for("some runs to be cancelled", lambda: 0 < _treated() < RUNS)

    kill(first)
    killed_at = _treated()
    platform.engine()

    wait_for(
        "the end of the act", lambda: BulkAct.objects.get().state == BulkState.DONE, seconds=60
    )
    assert 0 < killed_at < RUNS
    assert BulkAct.objects.get().done == RUNS
    assert Run.objects.filter(state=RunState.CANCELLED).count() == RUNS
    receipts = Event.objects.filter(type=EventType.RECEIPT)
    wait_for("the receipts", lambda: receipts.count() == RUNS)
    named = [
        run
        for entry in AuditEntry.objects.filter(action="run.cancel_many")
        for run in entry.detail["runs"]
    ]
    assert len(named) == len(set(named)) == RUNS
