"""Over sixty ways out, tried from inside a real container: none leads anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import docker
import pytest

from tests.contracts.engine import IMAGE, small_spec
from tests.sandbox.probes import PROBES
from workers.sandbox.base import Command

pytestmark = pytest.mark.docker

SOURCE = Path(__file__).with_name("probes.py")
#: Those that get through in a container with the walls taken down, and may on any machine.
WITHOUT_WALLS = (
    "user namespace",
    "mount namespace",
    "process namespace",
    "network namespace",
    "host name namespace",
    "mount memory",
    "mount processes",
    "bind the root elsewhere",
    "change the root",
    "make a disk",
    "make the memory device",
    "become root",
    "join root's group",
    "join more groups",
    "forge packets",
    "listen to all packets",
    "set the host's name",
    "change its supervisor",
    "change its users",
)


@pytest.fixture(scope="module")
def told(driver):
    """What became of each probe in one hardened container."""
    with driver.start(small_spec(), sandbox_id=str(uuid4())) as sandbox:
        sandbox.put_files({"probes.py": SOURCE.read_bytes()})
        execution = sandbox.run(Command(argv=("python3", "probes.py")))
        output = b"".join(each.data for each in execution if each.fd == 1)
        assert execution.exit.code == 0
        sandbox.ping()
    return json.loads(output)


@pytest.mark.parametrize("name", PROBES)
def test_no_way_leads_out(told, name):
    assert told[name].startswith("refused"), name


def test_there_are_more_than_forty(told):
    assert len(told) == len(PROBES) >= 40


def test_without_the_walls_the_same_ways_lead_out(driver):
    """What is refused above is refused by the walls, not by a mistake in the probe."""
    engine = docker.from_env()
    try:
        output = engine.containers.run(
            IMAGE,
            ["python3", "-c", SOURCE.read_text(), *WITHOUT_WALLS],
            remove=True,
            user="0:0",
            network_mode="none",
            working_dir="/workspace",
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            cap_add=["SYS_ADMIN"],
            entrypoint=[],
        )
    finally:
        engine.close()
    through = {name for name, how in json.loads(output).items() if how == "through"}

    assert len(through) >= 15, json.loads(output)
