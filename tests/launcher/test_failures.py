"""Every failure gives one sentence and the next step, exit code 1, and never a traceback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from launcher import orphans, processes
from tests.launcher.clone import Clone, until

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def told(done: subprocess.CompletedProcess[str]) -> str:
    """Return the sentence and the step, after checking the manner of every failure."""
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert done.stdout.count("  Next: ") == 1, done.stdout
    sentence, step = done.stdout.rstrip().splitlines()[-2:]
    assert sentence.startswith("x ")
    assert step.startswith("  Next: ")
    return f"{sentence}\n{step}"


def test_a_taken_port_names_who_holds_it_and_another_port(clone: Clone):
    with socket.create_server(("127.0.0.1", clone.port)):
        text = told(clone.make("up"))

    assert f"Port {clone.port} is taken by" in text
    assert f"(process {os.getpid()} in {Path.cwd()})" in text
    assert f"AOS_PORT={clone.port + 1} make demo" in text
    assert orphans.find(clone.home) == []


@pytest.mark.parametrize("port", ["0", "70000", "web", "-1"])
def test_a_port_that_is_none_is_refused(clone: Clone, port: str):
    assert f"AOS_PORT={port} is not a port" in told(clone.make("up", AOS_PORT=port))


def test_an_address_of_another_machine_cannot_be_listened_on(clone: Clone):
    text = told(clone.make("up", AOS_HOST="203.0.113.7"))

    assert f"AOS cannot listen on 203.0.113.7:{clone.port}" in text


def test_a_folder_that_is_no_clone_is_named(clone: Clone):
    (clone.folder / "Procfile").unlink()

    assert "is not a clone of AOS" in told(clone.make("up"))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("migrate", "The database could not be brought up to date"),
        ("collectstatic", "static files could not be collected"),
    ],
)
def test_a_failing_command_shows_its_last_lines_and_leaves_nothing_running(
    clone: Clone, command: str, sentence: str
):
    (clone.folder / f"fail-{command}").touch()

    done = clone.make("up")

    assert sentence in told(done)
    assert f"RuntimeError: {command} went wrong" in done.stdout
    assert str(clone.home.log(command)) in done.stdout
    assert orphans.find(clone.home) == []


def test_a_demo_without_its_data_is_explained_and_leaves_nothing_running(clone: Clone):
    (clone.folder / "fail-seed").touch()

    done = clone.make("demo")

    assert "The example data could not be made" in told(done)
    assert orphans.find(clone.home) == []


def test_a_failure_on_a_running_platform_leaves_it_running(running: Clone):
    before = running.status().processes
    (running.folder / "fail-migrate").touch()

    told(running.make("up"))

    assert running.status().processes == before
    assert all(process.is_alive for process in before)


def test_a_failing_image_offers_the_way_without_isolation(clone: Clone):
    (clone.folder / "fail-images").touch()

    text = told(clone.make("up", AOS_SANDBOX_DRIVER="docker"))

    assert "The sandbox image could not be built" in text
    assert "AOS_SANDBOX_DRIVER=local make demo" in text


def test_an_unknown_sandbox_driver_is_refused(clone: Clone):
    assert "is not a sandbox driver" in told(clone.make("up", AOS_SANDBOX_DRIVER="jail"))


def test_without_docker_runs_are_not_isolated_and_a_warning_says_so(clone: Clone):
    done = clone.make("up", AOS_SANDBOX_DRIVER="", DOCKER_HOST="unix:///nowhere/docker.sock")

    assert done.returncode == 0, done.stdout
    assert "isolation: none" in done.stdout
    assert "No Docker engine answers" in done.stdout
    assert "images" not in clone.calls()


def test_a_web_process_that_keeps_dying_shows_its_last_lines(clone: Clone):
    (clone.folder / "Procfile").write_text("web: sh -c 'echo cannot import web; exit 7'\n")

    done = clone.make("up")

    assert "web does not stay up (exit code 7)" in told(done)
    assert "cannot import web" in done.stdout
    assert str(clone.home.log("web")) in done.stdout


def test_a_procfile_line_that_is_none_is_shown(clone: Clone):
    (clone.folder / "Procfile").write_text("web python app.py\n")

    assert "Line 1 of" in told(clone.make("up"))


def test_a_variable_that_is_not_set_is_named(clone: Clone):
    (clone.folder / "Procfile").write_text("web: python app.py $AOS_NOWHERE\n")

    assert "$AOS_NOWHERE, which is not set" in told(clone.make("up"))


def test_damaged_passwords_are_not_replaced_by_new_ones(clone: Clone):
    clone.home.prepare()
    clone.home.secrets.write_text("{")

    assert "secrets.json is damaged" in told(clone.make("up"))


def test_a_server_that_cannot_start_is_explained_by_its_log(running: Clone):
    running.make("stop")
    (running.home.servers / "postgres/global/pg_control").unlink()

    done = running.make("up")

    told(done)
    assert "pg_control" in done.stdout


def test_data_of_another_postgres_version_is_left_alone(running: Clone):
    running.make("stop")
    (running.home.servers / "postgres/PG_VERSION").write_text("17\n")

    assert "was written by PostgreSQL 17" in told(running.make("up"))


def test_interrupting_a_start_ends_what_it_started(clone: Clone):
    begun = clone.begin("up")
    until(clone.home.status.exists)

    begun.process.send_signal(signal.SIGINT)
    done = begun.complete(60)

    assert done.returncode == 130
    assert "Traceback" not in done.stdout
    assert orphans.find(clone.home) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_state_folder_of_another_user_is_left_alone(clone: Clone):
    clone.home.state.mkdir()
    os.chown(clone.home.state, 12345, 12345)

    text = told(clone.make("up"))

    assert "belongs to user 12345, and you are root" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_without_space_is_named_before_anything_starts(clone: Clone):
    clone.home.state.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "aos", clone.home.state], check=True
    )
    try:
        assert "AOS needs 500 MB" in told(clone.make("up"))
    finally:
        subprocess.run(["umount", clone.home.state], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a private home for root")
def test_root_can_start_servers_from_a_clone_in_a_private_home(clone: Clone):
    clone.folder.chmod(0o700)
    clone.folder.parent.chmod(0o700)

    done = clone.make("up")

    assert done.returncode == 0, done.stdout
    assert clone.home.servers.is_relative_to("/var/lib/aos")
    owners = {p.stat().st_uid for p in (clone.home.servers / "postgres").iterdir()}
    assert owners == {clone.home.account.uid}
    uid = (processes.PROC / str(clone.pid("postgres"))).stat().st_uid
    assert uid == clone.home.account.uid != 0


def test_a_state_folder_with_a_long_name_still_has_room_for_sockets(clone: Clone):
    deep = clone.folder / ("d" * 100)
    deep.mkdir()

    done = clone.make("up", AOS_DATA_DIR=str(deep / "state"))

    try:
        assert done.returncode == 0, done.stdout
    finally:
        clone.make("reset", "--yes", AOS_DATA_DIR=str(deep / "state"))
        shutil.rmtree(deep)
