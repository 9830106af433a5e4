"""The containers run what the Procfile runs, with one door to Docker and no password of their own."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher import compose_env, procfile
from launcher.problems import Problem

PROJECT = Path(__file__).parents[2]
SOCKET = "/var/run/docker.sock"
SERVERS = {"postgres", "valkey"}
ONCE = {"migrate"}
SECRET_NAMES = re.compile(r"PASSWORD|SECRET|PEPPER|AUTH")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((PROJECT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]


def test_the_services_are_the_processes_of_the_procfile_and_the_servers(services):
    assert services.keys() - SERVERS - ONCE == procfile.read(PROJECT / "Procfile").keys()


def test_each_process_is_started_by_its_line_of_the_procfile(services):
    for name in procfile.read(PROJECT / "Procfile"):
        assert services[name]["command"] == [name]
        assert "entrypoint" not in services[name]
    assert 'ENTRYPOINT ["python", "-m", "launcher.process"]' in (PROJECT / "Dockerfile").read_text()


def test_the_engine_has_its_standby(services):
    assert services["engine"]["deploy"]["replicas"] == procfile.FORMATION["engine"] == 2


def test_only_the_worker_has_the_docker_socket(services):
    holders = [
        name
        for name, service in services.items()
        if any(SOCKET in str(volume) for volume in service.get("volumes", []))
    ]

    assert holders == ["worker"]
    assert "privileged" not in (PROJECT / "docker-compose.yml").read_text()


def test_images_are_pinned_to_a_version(services):
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d", tag), f"{name}: {service['image']}"
    assert "ARG BASE=python:3.11-slim-bookworm" in (PROJECT / "Dockerfile").read_text()


def test_no_secret_has_a_default(services):
    found = 0
    for service in services.values():
        for name, value in service["environment"].items():
            inner = re.search(r"\$\{([A-Z_]+)[^}]*\}@", str(value))
            if SECRET_NAMES.search(name) or inner:
                found += 1
                # Asked for, or empty: a store that is not used needs no key.
                assert re.search(r"\$\{[A-Z0-9_]+:(\?[^}]+|-)\}", str(value)), f"{name}={value}"
    assert found > 10


def test_every_service_is_watched_and_gains_no_privilege(services):
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name not in ONCE:
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_processes_are_no_root_and_cannot_change_their_image(services):
    for name in services.keys() - SERVERS:
        service = services[name]
        assert service["user"] == "10001:10001", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["environment"]["DJANGO_SETTINGS_MODULE"].endswith(".production"), name


def test_the_servers_can_be_reached_by_the_processes_only(compose, services):
    assert compose["networks"]["data"]["internal"] is True
    for name in SERVERS:
        assert services[name]["networks"] == ["data"]
        assert "ports" not in services[name]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:${AOS_PORT:-8000}:8000"]}


def test_a_worker_has_more_time_to_end_than_its_runs_are_given(services):
    assert services["worker"]["stop_grace_period"] == "75s"
    assert procfile.GRACE["worker"] < 75


def test_postgres_is_stopped_in_a_way_that_does_not_wait_for_clients(services):
    assert services["postgres"]["stop_signal"] == "SIGINT"


def test_the_environment_file_is_private_and_names_every_variable_that_is_required(tmp_path: Path):
    path = compose_env.make(tmp_path)

    text = (PROJECT / "docker-compose.yml").read_text()
    required = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    given = dict(
        line.split("=", 1) for line in path.read_text().splitlines() if not line.startswith("#")
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert required - given.keys() == set()
    assert all(given.values())
    secrets = [value for name, value in given.items() if SECRET_NAMES.search(name)]
    assert len(set(secrets)) == len(secrets) == 6
    assert min(map(len, secrets)) >= 32


def test_an_environment_file_is_never_overwritten(tmp_path: Path):
    before = compose_env.make(tmp_path).read_text()

    with pytest.raises(Problem, match="already there"):
        compose_env.make(tmp_path)

    assert (tmp_path / ".env").read_text() == before


def test_the_image_gets_only_what_is_named():
    lines = (PROJECT / ".dockerignore").read_text().split()

    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines[lines.index("*") - 1] != "!"
    assert {"apps", "workers", "aos_project", "launcher", "Procfile", "manage.py"} <= kept
    assert not {".env", ".git", ".aos", "tests"} & kept


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    != 0,
    reason="needs docker compose",
)
def test_docker_compose_accepts_the_file(tmp_path: Path):
    env = compose_env.make(tmp_path)

    subprocess.run(
        ["docker", "compose", "--env-file", env, "config", "--quiet"], cwd=PROJECT, check=True
    )
