"""Profiles are the operator's word: closed, checked when read, and nothing an agent can widen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.sandboxes.types import EgressMode
from workers.sandbox import docker, profiles, profiles_from_settings
from workers.sandbox.base import Mount, SandboxSpec
from workers.sandbox.errors import (
    EgressNotAllowed,
    ProfilesInvalid,
    ProfileUnknown,
    SandboxSpecInvalid,
)
from workers.sandbox.profiles import Warm

GOLDEN = Path(__file__).parent / "container_config_profile.json"
HEAVY = """
[heavy]
image = "registry.example/heavy:3"
user = "2000:3000"
runtime = "runsc"
egress = "allowlist"
limits = {memory_mb = 2048, cpu = 2}
most = {memory_mb = 4096, pids = 512}
mounts = [{source = "/srv/sets", target = "/data/sets"}]
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str):
        path = tmp_path / "profiles.toml"
        path.write_text(text)
        return profiles.load(path, base_image="aos/base:1")

    return read


def asked(profile, most_egress=EgressMode.OPEN, /, **wanted) -> SandboxSpec:
    return profile.spec(wanted, most_egress=most_egress)


def test_without_a_file_there_are_those_that_come_with_aos():
    found = profiles.load(None, base_image="aos/base:1")

    assert asked(found["base"]) == SandboxSpec(image="aos/base:1")
    assert {name: found[name].image for name in ("data", "node")} == {
        "data": "aos/sandbox-data:latest",
        "node": "aos/sandbox-node:latest",
    }


def test_a_profile_gives_what_it_says_and_a_version_asks_within_it(read):
    heavy = read(HEAVY)["heavy"]

    spec = asked(heavy, cpu=1, pids=100, lifetime_s=60)

    assert (spec.image, spec.profile) == ("registry.example/heavy:3", "heavy")
    assert (spec.user, spec.runtime) == ("2000:3000", "runsc")
    assert spec.mounts == (Mount(source="/srv/sets", target="/data/sets"),)
    assert (spec.memory_mb, spec.cpu, spec.pids, spec.lifetime_s) == (2048, 1, 100, 60)


def test_the_container_of_a_profile_is_made_exactly_as_agreed(read):
    spec = asked(read(HEAVY)["heavy"])
    made = {
        "container": docker.container_config(
            spec,
            image="sha256:0123",
            name="aos-test-box",
            labels=docker.labels("test", "box"),
            cpus=2,
            door="/data/egress/box",
        ),
        "volume": docker.volume_config(spec),
    }

    assert made == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("wish", "most"), [("memory_mb", 4096), ("pids", 512)])
def test_more_than_the_profile_allows_is_refused(read, wish, most):
    heavy = read(HEAVY)["heavy"]

    assert getattr(asked(heavy, **{wish: most}), wish) == most
    with pytest.raises(SandboxSpecInvalid, match=f"heavy allows at most {most}"):
        asked(heavy, **{wish: most + 1})


@pytest.mark.parametrize(
    "wish", ["user", "runtime", "image", "mounts", "profile", "privileged", "most", "name"]
)
def test_what_the_profile_settles_cannot_be_asked_for(read, wish):
    with pytest.raises(SandboxSpecInvalid, match=wish):
        asked(read(HEAVY)["heavy"], **{wish: "root"})


@pytest.mark.parametrize(
    ("profile", "host", "wanted", "allowed"),
    [
        ("allowlist", EgressMode.OPEN, "allowlist", True),
        ("allowlist", EgressMode.OPEN, "open", False),
        ("open", EgressMode.ALLOWLIST, "open", False),
        ("open", EgressMode.OPEN, "open", True),
        ("none", EgressMode.OPEN, "allowlist", False),
        ("allowlist", EgressMode.NONE, "allowlist", False),
        ("none", EgressMode.NONE, "none", True),
    ],
)
def test_host_and_profile_both_bound_the_network(read, profile, host, wanted, allowed):
    found = read(f'[net]\negress = "{profile}"')["net"]
    egress = {"mode": wanted} | ({"allow": ["a.example.com"]} if wanted == "allowlist" else {})

    if allowed:
        assert asked(found, host, egress=egress).egress.mode == wanted
    else:
        with pytest.raises(EgressNotAllowed, match="AOS_SANDBOX_EGRESS"):
            asked(found, host, egress=egress)


@pytest.mark.parametrize(
    "wrong",
    [
        "not toml",
        "[Upper]",
        '["../up"]',
        "[a]\nprivileged = true",
        '[a]\nnetwork = "host"',
        '[a]\ncap_add = ["SYS_ADMIN"]',
        "[a]\nimage = 7",
        '[a]\nuser = "0:0"',
        '[a]\nuser = "root"',
        '[a]\nuser = "10001"',
        '[a]\nuser = "10001:0"',
        '[a]\nruntime = "crun"',
        '[a]\negress = "everything"',
        "[a]\nlimits = {memory_mb = 1000000}",
        "[a]\nlimits = {lifetime_s = 60}",
        "[a]\nlimits = {swap_mb = 1}",
        "[a]\nmost = {cpu = 0}",
        "[a]\nlimits = {memory_mb = 2048}\nmost = {memory_mb = 1024}",
        '[a]\nmounts = [{source = "/srv/a"}]',
        '[a]\nmounts = [{source = "/srv/a", target = "/data/a", rw = true}]',
    ],
)
def test_a_wrong_file_is_refused_as_a_whole_and_says_where(read, wrong):
    with pytest.raises(ProfilesInvalid, match=r"profiles\.toml"):
        read(wrong)


@pytest.mark.parametrize(
    "source",
    [
        *("/", "/var", "/var/lib", "/var/lib/docker", "/var/lib/docker/volumes", "/var/run", "/run"),
        *("/var/run/docker.sock", "/run/docker.sock", "/proc", "/proc/1/root", "/sys/fs/cgroup", "/dev"),
        *("/dev/sda", "/etc", "/etc/shadow", "/root/.ssh", "/boot", "/usr/bin", "//etc", "/srv/../etc"),
        *("srv/data", "", ".", "/srv/data/", "/srv//data"),
    ],
)  # fmt: skip
def test_a_folder_that_gives_power_over_the_host_is_not_mounted(read, source):
    with pytest.raises(ProfilesInvalid, match="to mount"):
        read(f'[a]\nmounts = [{{source = "{source}", target = "/data/a"}}]')


@pytest.mark.parametrize(
    "target",
    ["/data", "/workspace", "/opt/aos", "/data/../etc", "/data/a/..", "data/a", "/", "/data/.", "/data//a"],
)  # fmt: skip
def test_nothing_is_mounted_over_what_the_sandbox_needs(read, target):
    with pytest.raises(ProfilesInvalid, match="below /data"):
        read(f'[a]\nmounts = [{{source = "/srv/a", target = "{target}"}}]')


def test_a_profile_nobody_wrote_is_named_with_those_there_are(read):
    with pytest.raises(ProfileUnknown, match=r"'lost'.*base, data, heavy, node"):
        profiles.named(read(HEAVY), "lost")


def test_the_file_is_read_anew_each_time(settings, tmp_path):
    path = tmp_path / "profiles.toml"
    settings.AOS_SANDBOX_PROFILES = str(path)

    with pytest.raises(ProfilesInvalid, match="No such file"):
        profiles_from_settings()
    path.write_text("[small]\nlimits = {memory_mb = 64}")
    assert set(profiles_from_settings()) == {"base", "data", "node", "small"}


@pytest.mark.parametrize(
    ("told", "warm"),
    [
        ("", Warm()),
        ("warm = {min = 2}", Warm(least=2, most=2)),
        ("warm = {max = 3}", Warm(least=0, most=3)),
        ("warm = {min = 1, max = 4}", Warm(least=1, most=4)),
    ],
)
def test_a_profile_says_how_many_wait(read, told, warm):
    assert read(f"[a]\n{told}")["a"].warm == warm


@pytest.mark.parametrize(
    ("slots", "least", "warm"), [(4, 1, (1, 4)), (4, 6, (6, 6)), (4, 0, (0, 0))]
)
def test_the_base_profile_keeps_as_many_as_the_worker_can_use(settings, slots, least, warm):
    settings.AOS_WORKER_SLOTS, settings.AOS_SANDBOX_WARM = slots, least

    assert profiles_from_settings()["base"].warm == Warm(least=warm[0], most=warm[1])
