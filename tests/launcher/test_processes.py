"""A process is named by id and start time, and only the named one is ever signalled."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import orphans, processes, status
from launcher.home import Home
from launcher.processes import MARKER, Process
from launcher.status import ServiceStatus
from tests.launcher.clone import program, until


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with program("sleep", "600", cwd=tmp_path) as process:
        yield process


@pytest.fixture
def place(tmp_path: Path) -> Home:
    state = tmp_path / ".aos"
    found = Home(
        project=tmp_path, state=state, servers=state, sockets=state / "sockets", account=None
    )
    found.prepare()
    return found


def identify(process: subprocess.Popen[bytes]) -> Process:
    found = processes.look(process.pid)
    assert found is not None
    return found


def record(place: Home, process: Process, *, boot: str) -> None:
    entry = ServiceStatus(
        name="idle", state="running", pid=process.pid, started=process.started, since=0.0
    )
    status.write(
        place.status,
        status.Status(boot=boot, pid=1, started=0, plan="", services=[entry]),
    )


def test_a_process_is_found_by_its_id_with_its_start_time(sleeper):
    assert identify(sleeper) == processes.look(sleeper.pid)
    assert identify(sleeper).is_alive


def test_an_ended_process_is_dead_even_before_its_parent_noticed(sleeper):
    process = identify(sleeper)

    sleeper.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)

    assert not process.is_alive
    assert processes.look(sleeper.pid) is None


def test_a_signal_never_reaches_a_process_that_took_over_the_id(sleeper):
    earlier = Process(sleeper.pid, identify(sleeper).started - 1)

    assert earlier.send(signal.SIGKILL) is False
    assert identify(sleeper).is_alive


def test_a_name_with_brackets_and_spaces_does_not_confuse_the_start_time(tmp_path: Path):
    odd = tmp_path / "a) Z (b"
    odd.symlink_to("/bin/sleep")

    with program(odd, "600") as process:
        until(lambda: processes.name_of(process.pid) == "a) Z (b")
        assert identify(process).is_alive


def test_end_asks_first_and_kills_what_ignores_it(tmp_path: Path):
    text = "trap '' TERM; echo up > up; while :; do sleep 0.05; done"
    with program("sh", "-c", text, cwd=tmp_path) as stubborn:
        until((tmp_path / "up").exists)

        processes.end([identify(stubborn)], ask=signal.SIGTERM, grace=0.3)

        assert stubborn.wait(5) == -signal.SIGKILL


def test_a_recorded_process_is_ours_only_while_it_is_the_same(place: Home, sleeper):
    process = identify(sleeper)

    record(place, process, boot=processes.boot_id())
    assert orphans.find(place) == [process]

    record(place, Process(process.pid, process.started + 1), boot=processes.boot_id())
    assert orphans.find(place) == []


def test_what_was_recorded_before_a_reboot_means_nothing(place: Home, sleeper):
    record(place, identify(sleeper), boot="another boot")

    assert orphans.find(place) == []
    assert orphans.end(place) == 0
    assert identify(sleeper).is_alive


def test_the_marker_of_another_clone_is_not_ours(place: Home):
    for owner, count in ((place.state, 1), (f"{place.state}2", 0)):
        env = {MARKER: str(owner), "PATH": os.defpath}
        with program("sleep", "600", env=env):
            assert len(orphans.find(place)) == count


def test_a_shell_in_the_data_folder_is_not_taken_for_a_server(place: Home):
    data = place.servers / "postgres"
    data.mkdir()
    with program("sleep", "600", cwd=data):
        assert orphans.find(place) == []


def test_the_launcher_never_ends_itself_or_its_callers(place: Home):
    spared = processes.ancestors()

    assert os.getpid() in spared
    assert os.getppid() in spared


def test_a_damaged_status_counts_as_none(place: Home):
    for text in ("", "{", "[]", '{"services": [{}]}', '{"services": [], "boot": 1, "new": 2}'):
        place.status.write_text(text)
        assert status.read(place.status) is None
