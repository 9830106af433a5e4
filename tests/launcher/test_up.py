"""What `make up` does on a fresh clone, on a running platform, and after accidents."""

from __future__ import annotations

import os
import signal
import stat

import pytest

from launcher import environment, orphans, processes
from tests.launcher.clone import Clone, until

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_up_starts_servers_and_processes_from_nothing(shared: Clone):
    names = [service.name for service in shared.status().services]

    assert names == ["postgres", "valkey", "engine-1", "engine-2", "web"]
    assert all(service.state == "running" for service in shared.status().services)
    with shared.database() as connection:
        row = connection.execute(
            "SELECT current_user, rolsuper, current_setting('fsync'), '[1]'::vector::text,"
            " current_setting('server_version_num')::int / 10000"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == ("aos", False, "on", "[1]", 18)


def test_up_migrates_and_makes_no_example_data(shared: Clone):
    assert shared.calls() == ["migrate", "collectstatic", "first_start"]
    assert not shared.home.demo.exists()


def test_up_prints_the_way_in_while_nobody_owns_the_place_and_keeps_the_code_nowhere(clone: Clone):
    done = clone.make("up")

    assert f"http://127.0.0.1:{clone.port}/start#CODE-0" in done.stdout
    kept = [path for path in clone.home.state.rglob("*") if path.is_file()]
    assert [path for path in kept if b"CODE-0" in path.read_bytes()] == []
    assert "CODE-1" in clone.make("up").stdout


def test_up_prints_no_code_when_somebody_owns_the_place(clone: Clone):
    (clone.folder / "owned").touch()

    done = clone.make("up")

    assert f"Chat Hub   http://127.0.0.1:{clone.port}/" in done.stdout
    assert "activation code" not in done.stdout


def test_a_start_without_a_code_leaves_the_platform_running(clone: Clone):
    (clone.folder / "fail-first_start").touch()

    done = clone.make("up")

    assert done.returncode == 1
    assert "The activation code could not be made" in done.stdout
    assert clone.service("web").state == "running"


def test_a_second_up_starts_nothing_twice(running: Clone):
    before = running.status()

    done = running.make("up")

    assert done.returncode == 0
    assert [s.process for s in running.status().services] == [s.process for s in before.services]
    assert running.status().supervisor == before.supervisor
    assert running.calls().count("collectstatic") == 1


def test_a_second_up_from_another_shell_keeps_the_port_of_the_first(running: Clone):
    before = running.status().processes

    done = running.make("up", AOS_PORT="", LANG="C")

    assert f"http://127.0.0.1:{running.port}" in done.stdout
    assert running.status().processes == before


def test_a_changed_setting_restarts_the_platform_with_it(running: Clone):
    done = running.make("up", AOS_WORKER_SLOTS="7")

    assert "AOS_WORKER_SLOTS changed" in done.stdout
    assert environment.read(running.home)["AOS_WORKER_SLOTS"] == "7"
    assert all(service.state == "running" for service in running.status().services)


def test_what_was_stored_survives_stop_and_up(running: Clone):
    with running.database() as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('here')")

    running.make("stop")
    running.make("up")

    with running.database() as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("here",)]


def test_lost_passwords_are_replaced_and_the_data_stays(running: Clone):
    with running.database() as connection:
        connection.execute("CREATE TABLE kept (word text)")
    running.make("stop")
    running.home.secrets.unlink()

    done = running.make("up")

    assert done.returncode == 0, done.stdout
    with running.database() as connection:
        assert connection.execute("SELECT to_regclass('kept')::text").fetchone() == ("kept",)


def test_up_repairs_after_the_supervisor_was_killed(running: Clone):
    with running.database() as connection:
        connection.execute("CREATE TABLE kept (word text)")
    left = running.status().processes
    running.status().supervisor.send(signal.SIGKILL)
    until(lambda: not running.status().is_live)

    done = running.make("up")

    assert done.returncode == 0, done.stdout
    assert "an earlier start left behind" in done.stdout
    assert not any(process.is_alive for process in left)
    with running.database() as connection:
        assert connection.execute("SELECT to_regclass('kept')::text").fetchone() == ("kept",)


def test_up_repairs_when_its_folder_was_deleted_under_the_running_platform(running: Clone):
    left = [running.status().supervisor, *running.status().processes]
    for path in sorted(running.home.run.iterdir()):
        path.unlink()

    done = running.make("up")

    assert done.returncode == 0, done.stdout
    assert not any(process.is_alive for process in left)


def test_up_goes_on_after_a_start_that_was_killed_half_way(clone: Clone):
    begun = clone.begin("up")
    until(lambda: (clone.home.servers / "postgres.new").exists() or clone.home.plan.exists())
    os.kill(begun.process.pid, signal.SIGKILL)
    begun.complete(timeout=10)

    done = clone.make("up")

    assert done.returncode == 0, done.stdout
    assert all(service.state == "running" for service in clone.status().services)


def test_two_ups_at_once_make_one_platform(clone: Clone):
    first, second = clone.begin("up"), clone.begin("up")

    codes = [first.complete(120).returncode, second.complete(120).returncode]

    assert codes == [0, 0]
    supervisors = [
        process
        for process in processes.everyone()
        if processes.carries_marker(process, clone.home.state)
        and b"supervise" in (processes.PROC / str(process.pid) / "cmdline").read_bytes()
    ]
    assert supervisors == [clone.status().supervisor]


def test_stop_leaves_no_process(running: Clone):
    left = [running.status().supervisor, *running.status().processes]

    done = running.make("stop")

    assert done.returncode == 0
    assert not any(process.is_alive for process in left)
    assert orphans.find(running.home) == []


def test_stop_ends_the_web_first_and_the_database_last(running: Clone):
    running.make("stop")

    lines = [
        line.split()[1] for line in running.log("supervisor").splitlines() if " ended: " in line
    ]
    assert lines[0] == "web"
    assert sorted(lines[1:3]) == ["engine-1", "engine-2"]
    assert lines[3:] == ["valkey", "postgres"]


def test_stop_without_a_platform_says_so_and_succeeds(clone: Clone):
    done = clone.make("stop")

    assert (done.returncode, "nothing runs" in done.stdout) == (0, True)


def test_no_password_can_be_read_in_an_argument(shared: Clone):
    values = [*environment.passwords(shared.home).values()]
    values += [value.removeprefix("aos:") for value in values]
    arguments = b" ".join(
        (processes.PROC / str(process.pid) / "cmdline").read_bytes()
        for process in [shared.status().supervisor, *shared.status().processes]
    )

    assert len(arguments) > 100
    assert not [value for value in values if value.encode() in arguments]


def test_files_of_the_state_folder_are_private(shared: Clone):
    state, static = shared.home.state, shared.home.state / "static"
    written = [path for path in state.rglob("*") if not path.is_relative_to(static)]
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [state, *written]}

    assert modes[shared.home.secrets] == modes[shared.home.env] == 0o600
    servers = shared.home.servers / "postgres"
    loose = [path for path, mode in modes.items() if mode & 0o077]
    assert [path for path in loose if not path.is_relative_to(servers)] == []


def test_status_names_every_process_and_the_address(shared: Clone):
    done = shared.make("status")

    assert done.returncode == 0
    for word in ("postgres", "valkey", "engine-2", "web", f":{shared.port}", "local"):
        assert word in done.stdout


def test_reset_asks_and_deletes_nothing_without_a_yes(shared: Clone):
    done = shared.make("reset")

    assert done.returncode == 1
    assert "make reset YES=1" in done.stdout
    assert shared.home.state.is_dir()
    assert shared.status().is_live


def test_reset_deletes_everything_when_told_to(running: Clone):
    place = running.home
    left = running.status().processes

    done = running.make("reset", "--yes")

    assert done.returncode == 0
    assert not any(process.is_alive for process in left)
    assert not place.state.exists()
    assert not place.servers.exists()
