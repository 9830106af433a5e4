"""Everything is killed at once, with runs in their sandboxes and others waiting: nothing of it stays."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from apps.runs.models import RunEvent
from apps.runs.types import EventKind
from apps.sandboxes.models import Sandbox
from apps.sandboxes.types import SandboxState
from tests.contracts.engine import IMAGE
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.platform import SLOW, kill, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.docker]

EGRESS = {"mode": "allowlist", "allow": ["api.example.com"]}


@pytest.fixture
def strangers(engine):
    """What looks a little like ours, and is somebody else's."""
    name = f"aos-stranger-{uuid4().hex[:8]}"
    marks = {"aos.managed": "1", "aos.instance": "somebody-else", "aos.sandbox": name}
    engine.create_volume(name, labels=marks)
    made = engine.create_container(IMAGE, ["sleep", "300"], name=name, labels=marks)
    engine.start(made)
    yield lambda: engine.inspect_container(made)["State"]["Running"] and engine.inspect_volume(name)
    engine.remove_container(made, force=True)
    engine.remove_volume(name, force=True)


def ours(engine, platform) -> set[str]:
    filters = {"label": f"aos.instance={platform.env['AOS_INSTANCE']}"}
    containers = [item["Names"][0] for item in engine.containers(all=True, filters=filters)]
    volumes = [item["Name"] for item in engine.volumes(filters=filters).get("Volumes") or []]
    return {*containers, *volumes}


def _is_working(run):
    return RunEvent.objects.filter(run=run, kind=EventKind.LOG, payload__text="tick").exists()


def test_after_a_kill_of_everything_nothing_of_ours_is_left(platform, engine, strangers, settings):
    platform.overrides |= {"AOS_SANDBOX_DRIVER": "docker", "AOS_SANDBOX_WARM": "2"}
    processes = [platform.engine(), platform.worker()]
    project = make_project()
    by = make_actor(organization=project.organization)
    small = {"memory_mb": 64}
    runs = [
        make_run(
            project=project,
            agent=make_agent(organization=project.organization, spec=SLOW | {"sandbox": wanted}),
            by=by,
            input={"seconds": 300},
        )
        for wanted in (small, small | {"egress": EGRESS})
    ]
    for run in runs:
        wait_for("the script to work", lambda run=run: _is_working(run), seconds=60)
    warm = Sandbox.objects.filter(state=SandboxState.WARM)
    wait_for("warm sandboxes", lambda: warm.count() == 2, seconds=60)
    before = ours(engine, platform)
    folder = settings.AOS_DATA_DIR / "egress"
    assert len(before) == 8  # a container and a volume each
    assert len(list(folder.iterdir())) == 1

    for process in processes:
        kill(process)
    killed = time.monotonic()
    platform.overrides["AOS_SANDBOX_WARM"] = "0"
    platform.overrides["AOS_WORKER_SLOTS"] = "1"
    platform.worker()

    wait_for("the old ones to go", lambda: not before & ours(engine, platform), seconds=60)
    assert time.monotonic() - killed < 60
    assert list(folder.iterdir()) == []
    assert not Sandbox.objects.alive().exists()
    assert strangers()


def test_a_stopped_worker_takes_its_warm_sandboxes_with_it(platform, engine):
    platform.overrides |= {"AOS_SANDBOX_DRIVER": "docker", "AOS_SANDBOX_WARM": "2"}
    worker = platform.worker()
    wait_for("warm sandboxes", lambda: len(ours(engine, platform)) == 4, seconds=60)

    worker.terminate()
    worker.wait(30)

    assert ours(engine, platform) == set()
    assert not Sandbox.objects.alive().exists()


def test_runs_get_warm_sandboxes_and_each_its_own(platform, engine):
    platform.overrides |= {"AOS_SANDBOX_DRIVER": "docker"}
    platform.engine()
    platform.worker()
    warm = Sandbox.objects.filter(state=SandboxState.WARM)
    wait_for("a warm sandbox", warm.exists, seconds=60)
    first = warm.get()
    project = make_project()
    agent = make_agent(organization=project.organization, spec=SLOW)
    by = make_actor(organization=project.organization)
    runs = [
        make_run(project=project, agent=agent, by=by, input={"seconds": 0.1}, timeout_s=60)
        for _ in range(3)
    ]

    gone = Sandbox.objects.filter(state=SandboxState.GONE, run_id__isnull=False)
    wait_for("three sandboxes to be used", lambda: gone.count() == 3, seconds=60)

    assert gone.filter(pk=first.pk).exists()
    assert set(gone.values_list("run_id", flat=True)) == {run.public_id for run in runs}
