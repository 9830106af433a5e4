"""A run's workspace goes from attempt to attempt, also when everything is killed on the way."""

from __future__ import annotations

import time

import pytest

from apps.core.failpoints import Action, Place
from apps.events.models import Event
from apps.events.types import EventType
from apps.runs.models import Attempt, Run, RunEvent
from apps.runs.types import EventKind, RunState
from apps.sandboxes.models import Sandbox
from apps.sandboxes.types import SandboxState
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.platform import kill, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.docker]

# Counts on a file how often it was begun. The first time it fails, or works until it is stopped.
COUNTING = {
    "entry": "main.py",
    "files": {
        "main.py": """
import json, os, pathlib, sys, time
seconds = json.load(open(os.environ["AOS_IN"] + "/input.json"))["seconds"]
file = pathlib.Path("begun")
begun = int(file.read_text()) + 1 if file.exists() else 1
file.write_text(str(begun))
print(f"begun {begun}", flush=True)
if begun == 1:
    time.sleep(seconds)
    sys.exit(3)
pathlib.Path(os.environ["AOS_OUT"], "begun.txt").write_text(str(begun))
"""
    },
    "artifacts": ["begun.txt"],
    "retry": {"base_s": 0.1, "max_attempts": 4, "retry_on": ["command_failed"]},
    "sandbox": {"memory_mb": 64},
    "keep_workspace": True,
}


@pytest.fixture
def arena(platform, tmp_path):
    places = tmp_path / "places"
    places.mkdir()
    platform.overrides |= {
        "AOS_SANDBOX_DRIVER": "docker",
        "AOS_SANDBOX_WARM": "0",
        "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
        "TEST_FAILPOINTS": str(places),
    }
    platform.places = places
    return platform


def submitted(seconds=0.0, **spec) -> Run:
    project = make_project()
    agent = make_agent(organization=project.organization, spec=COUNTING | spec)
    by = make_actor(organization=project.organization)
    return make_run(project=project, agent=agent, by=by, input={"seconds": seconds})


def ours(engine, platform) -> set[str]:
    filters = {"label": f"aos.instance={platform.env['AOS_INSTANCE']}"}
    containers = [item["Names"][0] for item in engine.containers(all=True, filters=filters)]
    volumes = [item["Name"] for item in engine.volumes(filters=filters).get("Volumes") or []]
    return {*containers, *volumes}


def says(run, text) -> bool:
    return RunEvent.objects.filter(
        run=run, kind=EventKind.LOG, payload__text__startswith=text
    ).exists()


def ended(run) -> bool:
    return Event.objects.filter(run_id=run.public_id, type=EventType.RECEIPT).exists()


def outcomes(run) -> list[str]:
    found = Attempt.objects.filter(run=run).order_by("number")
    return list(found.values_list("outcome", flat=True))


def test_what_a_stopped_worker_gives_back_goes_on_with_its_files_at_another(arena, engine):
    arena.engine()
    first = arena.worker("first")
    run = submitted(seconds=300)
    wait_for("the script to work", lambda: says(run, "begun 1"), seconds=60)

    first.terminate()
    first.wait(60)
    assert ours(engine, arena) == set()
    assert Sandbox.objects.get().state == SandboxState.SNAPSHOTTED
    arena.worker("second")

    wait_for("the receipt", lambda: ended(run), seconds=60)
    assert outcomes(run) == ["drained", "succeeded"]
    assert says(run, "begun 2")
    assert says(run, "The workspace is as an earlier attempt left it.")
    wait_for(
        "the workspace to be let go of", lambda: not Sandbox.objects.put_away().exists(), seconds=60
    )


def test_a_run_that_does_not_ask_for_it_begins_with_an_empty_workspace(arena):
    arena.engine()
    arena.worker()
    run = submitted(keep_workspace=False)

    wait_for("the receipt", lambda: ended(run), seconds=60)

    assert Run.objects.get(pk=run.pk).state == RunState.DEAD
    assert not says(run, "begun 2")


@pytest.mark.parametrize(
    ("place", "survives"),
    [
        (Place.SNAPSHOT_PAUSED, False),
        (Place.SNAPSHOT_STORED, False),
        (Place.SNAPSHOT_RECORDED, True),
    ],
)
def test_a_kill_on_the_way_leaves_nothing_and_loses_nothing_that_was_promised(
    arena, engine, place, survives
):
    (arena.places / place).write_text(Action.CRASH, "ascii")
    arena.engine()
    struck = arena.worker("struck")
    run = submitted()
    struck.wait(60)
    assert struck.returncode == -9
    left = ours(engine, arena)
    assert left, "the container of the dead, to be removed"
    kept = Sandbox.objects.put_away().exists()
    assert kept is survives

    killed = time.monotonic()
    arena.worker("next")
    wait_for("the old ones to go", lambda: not left & ours(engine, arena), seconds=60)
    assert time.monotonic() - killed < 60

    wait_for("the receipt", lambda: ended(run), seconds=60)
    assert Run.objects.get(pk=run.pk).state == RunState.SUCCEEDED
    # Said to be kept: the very next attempt has it. Not yet said: it begins anew, and fails once more.
    expected = ["lost", "succeeded"] if survives else ["lost", "failed", "succeeded"]
    assert outcomes(run) == expected
    assert Event.objects.filter(run_id=run.public_id, type=EventType.RECEIPT).count() == 1


def test_after_a_kill_of_everything_what_stood_still_is_gone(arena, engine):
    (arena.places / Place.SNAPSHOT_PAUSED).write_text(Action.STALL, "ascii")
    processes = [arena.engine(), arena.worker("stalled")]
    submitted()
    paused = Sandbox.objects.filter(state=SandboxState.PAUSED)
    wait_for("a paused sandbox", paused.exists, seconds=60)
    left = ours(engine, arena)
    assert left

    for process in processes:
        kill(process)
    killed = time.monotonic()
    arena.engine()
    arena.worker("next")

    wait_for("it to go", lambda: not left & ours(engine, arena), seconds=60)
    assert time.monotonic() - killed < 60
    assert not paused.exists()
