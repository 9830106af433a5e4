"""A script from the editor to its receipt, in a real sandbox of a real engine, seen in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from apps.agents.models import Agent
from apps.identity.types import Role
from apps.runs.models import Run, RunEvent
from apps.sandboxes.models import HostImage
from tests.contracts.engine import required_driver
from tests.factories import make_environment
from tests.support.platform import Platform, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PROGRAM = """\
import os
import time
from pathlib import Path

from told import tell

print("units:", os.environ["UNITS"], flush=True)
print("links:", os.listdir("/sys/class/net"), flush=True)
print("memory:", Path("/sys/fs/cgroup/memory.max").read_text().strip()
      if Path("/sys/fs/cgroup/memory.max").exists()
      else Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").read_text().strip(), flush=True)
for number in range(3):
    print("tick", number, flush=True)
    time.sleep(0.3)
Path(os.environ["AOS_OUT"], "units.txt").write_text(os.environ["UNITS"])
tell("It ran in " + os.environ["UNITS"])
"""
HELPER = """\
import json


def tell(summary):
    print("::aos " + json.dumps({"type": "result", "summary": summary}), flush=True)
"""


@pytest.fixture
def fleet(visitor, processes, tmp_path):
    """Engine and worker beside the web process, with the Docker driver."""
    required_driver().close()
    running = Platform(
        tmp_path,
        overrides=processes.overrides | {"AOS_SANDBOX_DRIVER": "docker", "AOS_SANDBOX_WARM": "0"},
    )
    running.engine()
    running.worker()
    yield running
    running.stop()
    print(running.logs())


@pytest.mark.usefixtures("fleet")
def test_a_script_is_written_tried_in_its_environment_and_leaves_its_file(visitor, person, project):
    make_environment(
        project=project,
        name="metric",
        limits={"memory_mb": 200},
        variables={"UNITS": "metric"},
    )
    page = visitor.page(person(Role.ADMIN))
    wait_for("the worker's word about its images", HostImage.objects.exists, seconds=60)
    page.goto("/integrations/sandboxes/images")
    base = page.get_by_role("row").filter(has_text="aos/sandbox-base:latest").first
    expect(base).to_contain_text("Up to date")
    expect(base.get_by_role("button", name="Copy digest")).to_be_visible()
    page.goto("/integrations/sandboxes/scripts/new")
    page.get_by_label("Name", exact=True).fill("Units")
    page.get_by_label("Environment").select_option("metric")
    page.get_by_label("Text of the file").fill(PROGRAM)
    page.get_by_role("button", name="Add a file").click()
    page.get_by_label("File name").last.fill("told.py")
    page.get_by_label("Text of the file").last.fill(HELPER)
    page.get_by_role("button", name="Create it").click()
    page.get_by_role("button", name="Save and try it").click()

    log, end = page.locator("#aos-log"), page.locator("#trial-end")
    expect(log).to_contain_text("units: metric", timeout=60_000)
    expect(log).to_contain_text("tick 2")
    expect(end).to_contain_text("Succeeded", timeout=30_000)
    expect(end).to_contain_text("It ran in metric")
    with page.expect_download() as download:
        end.get_by_role("link", name="units.txt").click()
    assert download.value.path().read_text() == "metric"
    said = [line.payload.get("text", "") for line in RunEvent.objects.order_by("seq")]
    assert "links: ['lo']" in said
    assert f"memory: {200 * 1024 * 1024}" in said
    run = Run.objects.get()
    assert (run.state, run.isolation) == ("succeeded", "docker")
    assert run.agent_version == Agent.objects.get(slug="units").versions.get()
