"""The supervisor: what dies comes back, in time, and nothing it owns outlives its end."""

from __future__ import annotations

import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from launcher import home, processes, status, supervision
from launcher.home import Home
from launcher.problems import Problem
from launcher.service import Service
from tests.launcher.clone import PROJECT, Clone, program, until

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A home without servers, whose services are one-line shell scripts."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    (tmp_path / "Procfile").write_text("")
    place = Home(
        project=tmp_path,
        state=tmp_path / ".aos",
        servers=tmp_path / ".aos",
        sockets=tmp_path / ".aos/sockets",
        account=None,
    )
    place.prepare()
    yield place
    supervision.stop(place, tell=nobody)


def nobody(text: str) -> None:
    """Listen to nothing."""


def script(place: Home, name: str, text: str, *, group: str = "", grace: float = 5.0) -> Service:
    return Service(
        name=name,
        group=group or name,
        argv=["/bin/sh", "-c", text],
        env={"PATH": os.defpath, processes.MARKER: str(place.state)},
        cwd=str(place.project),
        grace=grace,
    )


def service(place: Home, name: str) -> status.ServiceStatus:
    found = status.read(place.status)
    assert found is not None
    one = found.service(name)
    assert one is not None
    return one


def pid_of(place: Home, name: str) -> int:
    until(lambda: service(place, name).pid is not None)
    return service(place, name).pid or 0


def test_a_killed_service_comes_back(bench: Home):
    supervision.extend(bench, [script(bench, "idle", "exec sleep 600")])
    first = pid_of(bench, "idle")

    os.kill(first, signal.SIGKILL)

    until(lambda: service(bench, "idle").restarts == 1 and service(bench, "idle").pid is not None)
    assert service(bench, "idle").pid != first
    assert service(bench, "idle").last_exit == "killed by SIGKILL"


def test_a_service_that_keeps_failing_is_tried_ever_more_slowly(bench: Home):
    supervision.extend(bench, [script(bench, "bad", "date +%s.%N >> times; exit 3")])

    until(lambda: len((bench.project / "times").read_text().split()) >= 5)

    times = [float(word) for word in (bench.project / "times").read_text().split()[:5]]
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[3] > 3 * pauses[0]
    assert service(bench, "bad").last_exit == "exit code 3"


def test_what_waits_is_tried_at_once_when_the_plan_is_read_again(bench: Home):
    services = [script(bench, "bad", "echo x >> tries; exit 3")]
    supervision.extend(bench, services)
    until(lambda: len((bench.project / "tries").read_text().split()) >= 5)
    before = len((bench.project / "tries").read_text().split())

    supervision.extend(bench, services)

    until(lambda: len((bench.project / "tries").read_text().split()) >= before + 3, seconds=10)


def test_a_program_that_is_not_there_is_reported_and_the_others_run(bench: Home):
    lost = Service(name="lost", group="lost", argv=["/nowhere/prog"], env={}, cwd="/")

    supervision.extend(bench, [lost, script(bench, "idle", "exec sleep 600")])

    assert pid_of(bench, "idle") > 0
    assert "could not be started" in (service(bench, "lost").last_exit or "")


def test_children_of_a_dead_service_die_with_it(bench: Home):
    text = "sleep 600 & echo $! > grandchild; wait"
    supervision.extend(bench, [script(bench, "parent", text)])
    until((bench.project / "grandchild").exists)
    grandchild = processes.look(int((bench.project / "grandchild").read_text()))
    assert grandchild is not None

    os.kill(pid_of(bench, "parent"), signal.SIGKILL)

    until(lambda: not grandchild.is_alive)


def test_services_are_stopped_against_the_order_of_their_start(bench: Home):
    text = (
        "trap 'sleep 0.2; echo {0} >> ended; exit 0' TERM;"
        "touch up-{0}; while :; do sleep 0.05; done"
    )
    names = ["first", "second", "third"]
    supervision.extend(bench, [script(bench, name, text.format(name)) for name in names])
    until(lambda: all((bench.project / f"up-{name}").exists() for name in names))

    supervision.stop(bench, tell=nobody)

    assert (bench.project / "ended").read_text().split() == ["third", "second", "first"]


def test_services_of_one_group_are_stopped_together(bench: Home):
    # Each waits for the others' signals before it ends: one by one they never would.
    text = (
        "trap 'touch got-{0}; while [ $(ls got-* | wc -l) -lt 3 ]; do sleep 0.05; done; exit 0' TERM;"
        "touch up-{0}; while :; do sleep 0.05; done"
    )
    names = ["1", "2", "3"]
    supervision.extend(
        bench, [script(bench, f"twin-{n}", text.format(n), group="twin", grace=30) for n in names]
    )
    until(lambda: all((bench.project / f"up-{n}").exists() for n in names))

    supervision.stop(bench, tell=nobody)

    exits = [service(bench, f"twin-{n}").last_exit for n in names]
    assert exits == ["exit code 0"] * 3


def test_a_service_that_ignores_its_signal_is_killed_after_its_grace(bench: Home):
    text = "trap '' TERM; echo up > up; while :; do sleep 0.05; done"
    supervision.extend(bench, [script(bench, "stubborn", text, grace=0.5)])
    until((bench.project / "up").exists)
    stubborn = processes.look(pid_of(bench, "stubborn"))
    assert stubborn is not None

    supervision.stop(bench, tell=nobody)

    assert not stubborn.is_alive
    assert "did not end in time" in bench.log("supervisor").read_text()


def test_stopping_while_a_service_waits_to_be_tried_again_does_not_wait(bench: Home):
    supervision.extend(bench, [script(bench, "bad", "exit 1")])
    until(lambda: service(bench, "bad").restarts >= 4)

    begin = time.monotonic()
    supervision.stop(bench, tell=nobody)

    assert time.monotonic() - begin < 3


def test_a_second_supervisor_ends_by_itself(bench: Home):
    supervision.extend(bench, [script(bench, "idle", "exec sleep 600")])
    before = status.read(bench.status)
    clone = Clone(bench.project, port=1)

    done = clone.make("supervise")

    assert done.returncode == 1
    assert status.read(bench.status) == before


def test_logs_are_appended_to_and_survive_the_supervisor(bench: Home):
    text = "while :; do echo line; sleep 0.05; done"
    supervision.extend(bench, [script(bench, "talker", text)])
    talker = processes.look(pid_of(bench, "talker"))
    now = status.read(bench.status)
    assert talker is not None
    assert now is not None

    now.supervisor.send(signal.SIGKILL)
    until(lambda: not now.is_live)
    size = bench.log("talker").stat().st_size

    until(lambda: bench.log("talker").stat().st_size > size)
    assert talker.is_alive
    processes.end([talker], ask=signal.SIGKILL, grace=1)


def test_a_full_disk_does_not_end_the_supervisor(bench: Home):
    supervision.extend(bench, [script(bench, "idle", "exec sleep 600")])
    first = pid_of(bench, "idle")
    # A folder where the draft of the state is written fails like a disk without space.
    now = status.read(bench.status)
    assert now is not None
    blocked = bench.run / f".status.json.{now.pid}"
    blocked.mkdir()

    os.kill(first, signal.SIGKILL)

    until(lambda: "could not be written" in bench.log("supervisor").read_text())
    blocked.rmdir()
    until(lambda: service(bench, "idle").pid not in {None, first})


def test_a_supervisor_that_says_nothing_is_reported(bench: Home, monkeypatch: pytest.MonkeyPatch):
    supervisor = supervision.extend(bench, []).supervisor
    supervisor.send(signal.SIGSTOP)
    bench.status.unlink()

    # Not before: its start may take longer.
    with monkeypatch.context() as patch:
        patch.setattr(supervision, "START_SECONDS", 0.3)
        with pytest.raises(Problem, match="holds its lock and says nothing"):
            supervision.current(bench)

    supervisor.send(signal.SIGKILL)
    until(lambda: supervision.current(bench) is None)


def test_stopping_says_for_whom_it_waits(bench: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervision, "PATIENCE_SECONDS", 0.2)
    text = "trap 'sleep 1; exit 0' TERM; echo up > up; while :; do sleep 0.05; done"
    supervision.extend(bench, [script(bench, "worker", text)])
    until((bench.project / "up").exists)
    told: list[str] = []

    supervision.stop(bench, tell=told.append)

    assert told == ["waiting for worker, up to 5 s", "worker stopped"]


def test_a_killed_postmaster_comes_back_with_its_data(running: Clone):
    with running.database() as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('here')")
    first = running.pid("postgres")

    os.kill(first, signal.SIGKILL)

    until(lambda: running.service("postgres").restarts == 1)
    assert running.make("up").returncode == 0
    with running.database() as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("here",)]


def test_a_killed_valkey_comes_back_with_its_data(running: Clone):
    import redis

    from launcher import environment, valkey

    url = environment.read(running.home)["REDIS_URL"]
    with redis.Redis.from_url(url) as client:
        client.set("kept", "here")
        client.waitaof(1, 0, 5000)
        first = running.pid("valkey")
        os.kill(first, signal.SIGKILL)
        until(lambda: running.service("valkey").restarts == 1)
        assert valkey.wait_until_ready(url)
        assert client.get("kept") == b"here"


def test_postgres_comes_back_beside_a_pid_file_that_names_another_process(running: Clone):
    account, data = running.home.account, running.home.servers / "postgres"
    running.make("stop")
    options = account.options if account else {}
    # Of the same user: PostgreSQL itself would take it for a living postmaster.
    with program("sleep", "600", cwd="/", **options) as stranger:
        pid_file = data / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{data}\n0\n1\n{running.home.sockets}\n")
        if account is not None:
            os.chown(pid_file, account.uid, account.gid)

        done = running.make("up")

        assert done.returncode == 0, done.stdout
        assert stranger.poll() is None


def test_backends_that_outlive_their_postmaster_are_ended_first(running: Clone):
    with running.database() as connection:
        backend = connection.info.backend_pid
        left = processes.look(backend)
        assert left is not None
        os.kill(backend, signal.SIGSTOP)
        os.kill(running.pid("postgres"), signal.SIGKILL)

        until(lambda: running.service("postgres").restarts == 1)
        until(lambda: running.service("postgres").state == "running")

        assert not left.is_alive
    assert running.make("up").returncode == 0


def test_the_plan_and_the_state_hold_what_the_next_launcher_needs(shared: Clone):
    plan = json.loads(shared.home.plan.read_text())

    assert [entry["name"] for entry in plan] == [s.name for s in shared.status().services]
    assert home.at(shared.folder, shared.home.state) == shared.home
