"""The golden file: every field that shapes a container. A change here is a change of the walls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workers.sandbox import docker
from workers.sandbox.base import SandboxSpec

GOLDEN = Path(__file__).parent / "container_config.json"


def made(*, door="", **wanted) -> dict:
    spec = SandboxSpec(image="aos/sandbox-base:latest", **wanted)
    return {
        "container": docker.container_config(
            spec,
            image="sha256:0123",
            name="aos-test-box",
            labels=docker.labels("test", "box"),
            cpus=2,
            door=door,
        ),
        "volume": docker.volume_config(spec),
    }


def test_the_container_is_made_exactly_as_agreed():
    assert made() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_a_way_out_adds_one_read_only_folder_and_a_forwarder_and_nothing_else():
    closed, opened = made()["container"], made(door="/data/egress/box")["container"]
    mounts = opened["HostConfig"].pop("Mounts")

    assert mounts[:-1] == closed["HostConfig"].pop("Mounts")
    assert mounts[-1] == {
        "Type": "bind",
        "Source": "/data/egress/box",
        "Target": "/run/aos-egress",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }
    assert opened.pop("Entrypoint") == ["python3", "-I", "-S", "/opt/aos/forward.py"]
    assert closed.pop("Entrypoint") == ["sleep"]
    assert opened == closed


def test_limits_reach_the_container():
    config = made(memory_mb=100, cpu=0.25, pids=32, open_files=100, tmp_mb=7, lifetime_s=60)
    host = config["container"]["HostConfig"]

    assert host["Memory"] == host["MemorySwap"] == 100 * 1024 * 1024
    assert host["NanoCpus"] == 250_000_000
    assert host["PidsLimit"] == 32
    assert {"Name": "nofile", "Soft": 100, "Hard": 100} in host["Ulimits"]
    assert "size=7m" in host["Tmpfs"]["/tmp"]  # noqa: S108 - of the sandbox
    assert "size=50m" in config["volume"]["o"]
    assert config["container"]["Cmd"] == ["60"]


def test_a_host_with_fewer_processors_gives_what_it_has():
    assert made(cpu=4)["container"]["HostConfig"]["NanoCpus"] == 2_000_000_000


@pytest.mark.parametrize("way_out", ["docker.sock", "host", "SYS_ADMIN", "unconfined"])
def test_no_way_out_is_mentioned_anywhere(way_out):
    values = json.dumps([made(), made(memory_mb=8192, cpu=4, pids=1024)]).replace("HostConfig", "")

    assert way_out not in values.replace("Hostname", "")
