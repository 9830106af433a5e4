"""The way to the Docker engine goes in the middle of a run, and comes back: runs end, and nothing stays."""

from __future__ import annotations

import pytest

from apps.runs.models import Run, RunEvent
from apps.runs.types import FINAL, EventKind, RunState
from apps.sandboxes.models import Sandbox
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.bridge import Bridge
from tests.support.platform import SLOW, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.docker]

ONCE = {"max_attempts": 1}
OFTEN = {"max_attempts": 10, "base_s": 0.5, "max_s": 1}


@pytest.fixture
def way(platform, tmp_path):
    """The worker's way to the engine, which can be cut and opened again."""
    path = tmp_path / "engine.sock"
    platform.overrides |= {
        "AOS_SANDBOX_DRIVER": "docker",
        "AOS_SANDBOX_WARM": "0",
        "DOCKER_HOST": f"unix://{path}",
    }
    open_ways = []

    def opened() -> Bridge:
        open_ways.append(Bridge(path))
        return open_ways[-1]

    yield opened
    if path.exists():
        open_ways[-1].cut()


def containers(engine, platform):
    return engine.containers(
        all=True, filters={"label": f"aos.instance={platform.env['AOS_INSTANCE']}"}
    )


def volumes(engine, platform):
    filters = {"label": f"aos.instance={platform.env['AOS_INSTANCE']}"}
    return engine.volumes(filters=filters).get("Volumes") or []


def is_working(run):
    return RunEvent.objects.filter(run=run, kind=EventKind.LOG, payload__text="tick").exists()


def ended(run):
    return Run.objects.filter(pk=run.pk, state__in=FINAL).first()


def code_of(run):
    return (Run.objects.get(pk=run.pk).error or {}).get("code")


def test_runs_end_while_the_engine_is_away_and_begin_again_with_it(platform, engine, way):
    bridge = way()
    platform.engine()
    worker = platform.worker()
    project = make_project()
    here = {"project": project, "by": make_actor(organization=project.organization)}
    agent = make_agent(organization=project.organization, spec=SLOW)
    long = {"input": {"seconds": 300}, "agent": agent} | here
    lost, again = make_run(**long, retry=ONCE), make_run(**long, retry=OFTEN | {"max_attempts": 2})
    for run in (lost, again):
        wait_for("the script to work", lambda run=run: is_working(run), seconds=60)

    bridge.cut()
    refused = make_run(agent=agent, input={"seconds": 0.1}, retry=ONCE, **here)
    patient = make_run(agent=agent, input={"seconds": 0.1}, retry=OFTEN, **here)

    for run in (lost, again, refused):
        wait_for("the end", lambda run=run: ended(run), seconds=60)
    ends = {code_of(run) for run in (again, refused)}
    assert (code_of(lost), ends) == ("sandbox_lost", {"sandbox_unavailable"})
    assert worker.poll() is None
    assert not ended(patient)

    way()
    wait_for("the patient run", lambda: ended(patient), seconds=60)

    assert ended(patient).state == RunState.SUCCEEDED
    wait_for("nothing to be left", lambda: not containers(engine, platform), seconds=60)
    wait_for("no volume to be left", lambda: not volumes(engine, platform), seconds=60)
    wait_for("the rows", lambda: not Sandbox.objects.alive().exists(), seconds=60)


def test_a_run_whose_image_is_missing_ends_and_says_what_to_do(platform, engine, tmp_path):
    profiles = tmp_path / "profiles.toml"
    profiles.write_text('[lost]\nimage = "aos/none:latest"\n')
    platform.overrides |= {
        "AOS_SANDBOX_DRIVER": "docker",
        "AOS_SANDBOX_WARM": "0",
        "AOS_SANDBOX_PROFILES": str(profiles),
    }
    platform.engine()
    platform.worker()
    project = make_project()
    spec = SLOW | {"sandbox": {"profile": "lost"}}
    run = make_run(
        project=project,
        agent=make_agent(organization=project.organization, spec=spec),
        by=make_actor(organization=project.organization),
        input={"seconds": 1},
    )

    found = wait_for("the end", lambda: ended(run), seconds=60)

    assert (found.state, found.error["code"], found.attempts) == (
        RunState.FAILED,
        "image_missing",
        1,
    )
    assert "manage.py images build" in found.error["detail"]
    assert containers(engine, platform) == []
    assert volumes(engine, platform) == []
