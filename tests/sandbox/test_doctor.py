"""The doctor says nothing of a good host, names what is wrong, and its trials can fail."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from django.core.management import CommandError, call_command

from apps.sandboxes.types import EgressMode
from tests.contracts.engine import IMAGE, required_driver
from tests.contracts.sandbox_driver import found_by
from workers.sandbox import docker, doctor
from workers.sandbox.base import Mount
from workers.sandbox.egress.doors import Doors
from workers.sandbox.egress.policy import Egress
from workers.sandbox.errors import SandboxUnavailable
from workers.sandbox.profiles import Profile
from workers.sandbox.supervised import SupervisedSandbox

pytestmark = pytest.mark.docker

BASE = Profile(name="base", image=IMAGE)


@pytest.fixture
def examined(driver, tmp_path):
    doors = Doors(tmp_path / "doors")
    driver = required_driver(doors=doors)

    def examined(*profiles, most=EgressMode.ALLOWLIST):
        known = {profile.name: profile for profile in (BASE, *profiles)}
        return {f.code: f for f in doctor.examine(driver, known, most_egress=most)}

    yield examined
    assert doors.found() == frozenset()
    assert found_by(driver) == frozenset()
    driver.close()


def errors(findings) -> set[str]:
    return {code for code, finding in findings.items() if finding.is_error}


@pytest.mark.parametrize("most", EgressMode.values)
def test_a_host_that_can_run_sandboxes_has_no_error(examined, most):
    assert errors(examined(most=EgressMode(most))) == set()


def test_a_host_whose_sandboxes_cannot_rest_is_told_so(examined, monkeypatch):
    assert "no_rest" not in examined()

    def refuse(*_, **__):
        raise SandboxUnavailable(driver="docker", detail="cgroup freezer not found")

    monkeypatch.setattr(SupervisedSandbox, "pause", refuse)

    found = examined()["no_rest"]
    assert not found.is_error
    assert "cgroup freezer" in found.message


def test_what_a_profile_lacks_is_named_with_the_next_step(examined):
    found = examined(
        replace(BASE, name="strange", runtime="no-such-runtime"),
        replace(BASE, name="foreign", image="registry.invalid/nothing:1"),
        replace(BASE, name="mounting", mounts=(Mount(source="/srv/no-such", target="/data/a"),)),
    )

    assert errors(found) == {"runtime_missing", "image_missing", "mount_missing"}
    assert "docker pull registry.invalid/nothing:1" in found["image_missing"].hint
    assert all(finding.hint for finding in found.values())


@pytest.mark.parametrize(
    ("wall", "missing", "code"),
    [
        ("SecurityOpt", ["no-new-privileges:true", "seccomp=unconfined"], "not_confined"),
        ("SecurityOpt", [], "not_confined"),
        ("PidsLimit", 1024, "limit_not_enforced"),
        ("Memory", 1 << 30, "limit_not_enforced"),
    ],
)
def test_a_wall_that_the_engine_only_says_it_has_is_found(
    examined, monkeypatch, wall, missing, code
):
    """The sabotage: the container is made without it, and nothing tells the doctor but the kernel."""
    real = docker.container_config

    def config(*args, **options):
        made = real(*args, **options)
        made["HostConfig"] |= {wall: missing} | (
            {"MemorySwap": missing} if wall == "Memory" else {}
        )
        return made

    monkeypatch.setattr(docker, "container_config", config)

    assert errors(examined()) == {code}


def test_a_canary_that_shows_outside_is_found(examined, engine, monkeypatch):
    """The sabotage: run commands as the engine's own exec, whose words everybody may listen to."""
    real = SupervisedSandbox.run

    def run(self, command):
        if told := command.env.get("CANARY"):
            made = engine.exec_create(self.handle, ["echo", told])
            engine.exec_start(made["Id"])
        return real(self, command)

    monkeypatch.setattr(SupervisedSandbox, "run", run)

    assert errors(examined()) == {"canary_leaked"}


def test_a_proxy_that_lets_everything_through_is_found(examined, monkeypatch):
    monkeypatch.setattr(Egress, "admits", lambda *_: True)

    found = examined()

    assert errors(found) == {"denied_host_reached"}
    assert "AOS_EGRESS_FOLDER" in found["denied_host_reached"].hint


def test_a_socket_that_everybody_may_use_is_found(examined, monkeypatch):
    monkeypatch.setattr(doctor.stat, "S_IWOTH", 0o600)  # as if these bits stood for the others

    assert errors(examined()) == {"socket_open_to_all"}


def test_an_engine_that_is_away_is_one_finding(monkeypatch, tmp_path, driver):
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
        (finding,) = doctor.examine(driver, {"base": BASE}, most_egress=EgressMode.NONE)

    assert (finding.code, finding.is_error) == ("engine_unreachable", True)


def test_the_command_tells_all_and_ends_with_the_verdict(settings, tmp_path, driver):
    settings.AOS_SANDBOX_DRIVER = "docker"
    settings.AOS_EGRESS_FOLDER = tmp_path / "egress"
    told = io.StringIO()

    call_command("sandbox", "doctor", stdout=told)
    assert told.getvalue().endswith("Sandboxes can run on this host.\n")

    settings.AOS_SANDBOX_PROFILES = str(tmp_path / "no.toml")
    with pytest.raises(CommandError, match=r"no\.toml"):
        call_command("sandbox", "doctor", stdout=told)
    settings.AOS_SANDBOX_PROFILES = ""
    settings.AOS_SANDBOX_IMAGE = "aos/none:latest"
    with pytest.raises(CommandError, match="1 of these must be put right"):
        call_command("sandbox", "doctor", stdout=told)
    assert "error    image_missing" in told.getvalue()


def test_the_local_driver_is_told_for_what_it_is(settings):
    settings.AOS_SANDBOX_DRIVER = "local"
    told = io.StringIO()

    call_command("sandbox", "doctor", stdout=told)

    assert re.search(r"(no|little)_isolation", told.getvalue())
