"""A worker's host is cut off from the rest and comes back: fenced, reclaimed, one receipt."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from django.conf import settings
from django.db import connection

from apps.events.models import Event
from apps.events.types import EventType
from apps.runs.fleet_models import WorkerNode
from apps.runs.models import Attempt, Run, RunEvent
from apps.runs.types import EventKind, RunState
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.hosts import second_host
from tests.support.platform import SLOW, Platform, kill, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
def other_host(transactional_db):
    db = connection.settings_dict
    with second_host(int(db["PORT"]), urlsplit(settings.AOS_REDIS_URL).port) as host:
        yield host


@pytest.fixture
def platforms(other_host, transactional_db, tmp_path):
    """One platform on two hosts: the engine is here."""
    here = Platform(tmp_path)
    db, redis = connection.settings_dict, urlsplit(settings.AOS_REDIS_URL)
    there = Platform(
        tmp_path,
        {
            "DATABASE_URL": f"postgresql://{db['USER']}:{quote(db['PASSWORD'])}"
            f"@{other_host.gateway}:{db['PORT']}/{db['NAME']}",
            "REDIS_URL": f"redis://:{redis.password}@{other_host.gateway}:{redis.port}/0",
        },
        prefix=other_host.prefix,
    )
    yield here, there
    other_host.plug_in()
    here.stop()
    there.stop()
    print(here.logs())


@pytest.fixture
def scene(transactional_db):
    project = make_project()
    home = {"organization": project.organization}
    return {"project": project, "agent": make_agent(**home, spec=SLOW), "by": make_actor(**home)}


def _ended(run):
    return Event.objects.filter(run_id=run.public_id, type=EventType.RECEIPT).exists()


def _scripts_of(pid):
    """The scripts that a process has started, or what it started has."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parent = int((entry / "stat").read_text("ascii").rpartition(")")[2].split()[1])
            parents[int(entry.name)] = (parent, (entry / "cmdline").read_bytes())
    family, found = {pid}, []
    for child in sorted(parents):
        parent, words = parents[child]
        if parent in family:
            family.add(child)
            if b"main.py" in words:
                found.append(child)
    return found


def test_a_host_that_is_cut_off_is_fenced_and_takes_part_again_when_it_is_back(
    platforms, other_host, scene
):
    here, there = platforms
    here.engine()
    far = there.worker("far")
    run = make_run(**scene, input={"seconds": 16})
    ticks = RunEvent.objects.filter(run=run, kind=EventKind.LOG, payload__text="tick")
    wait_for("the script to work", ticks.exists)

    assert _scripts_of(far.pid)
    other_host.cut_off()
    near = here.worker("near")
    wait_for("the second attempt", lambda: Attempt.objects.filter(run=run).count() == 2)
    # Who was cut off has stopped by itself, before anybody else started.
    assert not _scripts_of(far.pid)
    other_host.plug_in()

    wait_for("the receipt", lambda: _ended(run), seconds=60)
    assert Run.objects.get(pk=run.pk).state == RunState.SUCCEEDED
    assert Event.objects.filter(run_id=run.public_id, type=EventType.RECEIPT).count() == 1
    outcomes = Attempt.objects.filter(run=run).order_by("number")
    assert list(outcomes.values_list("outcome", flat=True)) == ["lost", "succeeded"]

    kill(near)
    again = make_run(**scene, input={"seconds": 0.2})
    wait_for("the host that is back to work", lambda: _ended(again), seconds=60)
    assert Attempt.objects.filter(run=again, outcome="succeeded").get().worker_name == "far@test"
    assert WorkerNode.objects.filter(name="far@test").count() == 1
