from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.contracts.sandbox_driver import (
    SandboxDriverContract,
    a_long_sleep,
    becomes_true,
    found_by,
    said,
    sh,
    sleepers,
)
from tests.support.orphans import kill_a_worker_with_a_sandbox
from workers.sandbox import local
from workers.sandbox.base import SandboxSpec
from workers.sandbox.egress.policy import Egress
from workers.sandbox.errors import LocalSandboxRefused, SandboxLost, SandboxUnavailable
from workers.sandbox.local import LocalDriver, _found_wall

WALLS = [
    pytest.param(False, id="bare"),
    pytest.param(
        True,
        id="bwrap",
        marks=pytest.mark.skipif(not _found_wall(), reason="needs bubblewrap, and leave to use it"),
    ),
]


@pytest.fixture(params=WALLS)
def walled(request):
    return request.param


@pytest.fixture
def driver(tmp_path, walled):
    driver = LocalDriver(root=tmp_path / "sandboxes", allowed=True, walled=walled)
    yield driver
    assert found_by(driver) == frozenset()


@pytest.fixture
def impatient_driver(tmp_path, walled):
    return LocalDriver(root=tmp_path / "sandboxes", allowed=True, silence_s=2, walled=walled)


@pytest.fixture
def spec():
    return SandboxSpec(image="ignored", memory_mb=512, pids=64)


class TestLocalDriver(SandboxDriverContract):
    pass


def test_it_refuses_to_exist_where_it_is_not_allowed(tmp_path):
    with pytest.raises(LocalSandboxRefused, match="isolates nothing"):
        LocalDriver(root=tmp_path, allowed=False)


def test_its_runs_are_shown_for_what_they_are(driver, spec, walled):
    told = (driver.isolation, [finding.code for finding in driver.check(image="")])
    assert told == (("bwrap", ["little_isolation"]) if walled else ("none", ["no_isolation"]))
    with driver.start(spec, sandbox_id="shown") as sandbox:
        assert sandbox.isolation == driver.isolation


def test_a_wall_that_was_asked_for_and_cannot_be_had_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_found_wall", lambda: "")

    with pytest.raises(SandboxUnavailable, match="bubblewrap"):
        LocalDriver(root=tmp_path, allowed=True, walled=True)
    assert LocalDriver(root=tmp_path, allowed=True).isolation == "none"


#: What a script may try at its host, and prints when it got there.
TRIES = {
    "files": "cat {secret}",
    "home": "cat /root/.profile /root/.bashrc /home/*/.profile | grep .",
    "processes": "kill -0 {worker} && echo reached",
    "environment": "tr '\\0' '\\n' < /proc/{worker}/environ",
    "network": "python3 -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
    "; print('reached')\"",
    "engine": "test -S /var/run/docker.sock && echo reached",
    "write": "echo x > /usr/aos-was-here && echo reached",
    "settings": "ls /etc/shadow /etc/hostname | grep .",
}


@pytest.mark.skipif(not _found_wall(), reason="needs bubblewrap, and leave to use it")
@pytest.mark.parametrize("name", TRIES)
def test_behind_the_wall_there_is_no_host(tmp_path, spec, name):
    secret = tmp_path / "secret"
    secret.write_text("reached")
    driver = LocalDriver(root=tmp_path / "sandboxes", allowed=True, walled=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = {"secret": secret, "worker": os.getpid(), "port": server.getsockname()[1]}
        with driver.start(spec, sandbox_id=f"try-{name}") as sandbox:
            execution = sandbox.run(sh(TRIES[name].format(**words)))
            told = b"".join(output.data for output in execution if output.fd == 1)

    assert told == b""
    assert execution.exit.code != 0


def test_without_the_wall_a_script_reads_what_its_host_has(tmp_path, spec):
    secret = tmp_path / "secret"
    secret.write_text("reached")
    driver = LocalDriver(root=tmp_path / "sandboxes", allowed=True, walled=False)

    with driver.start(spec, sandbox_id="bare") as sandbox:
        assert said(sandbox, sh(f"cat {secret}")) == "reached"


@pytest.mark.skipif(not _found_wall(), reason="needs bubblewrap, and leave to use it")
def test_a_version_that_reaches_hosts_has_the_hosts_network_behind_the_wall(tmp_path):
    driver = LocalDriver(root=tmp_path / "sandboxes", allowed=True, walled=True)
    egress = Egress.from_mapping({"mode": "allowlist", "allow": ["api.example.com"]})
    spec = SandboxSpec(image="ignored", memory_mb=512, pids=64, egress=egress)
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = {"port": server.getsockname()[1]}
        with driver.start(spec, sandbox_id="reaching") as sandbox:
            assert said(sandbox, sh(TRIES["network"].format(**words))) == "reached\n"


def test_a_program_that_stays_has_the_same_limits(driver, spec):
    with driver.start(spec, sandbox_id="limited") as sandbox:
        line = sandbox.attach(
            sh("ulimit -n; ulimit -c; python3 -c 'bytearray(600 << 20)' || echo no")
        )
        told = b""
        while data := line.receive(10):
            told += data
        line.close()

    assert told.decode().split() == [str(spec.open_files), "0", "no"]


def test_files_are_for_their_owner_only(driver, spec):
    with driver.start(spec, sandbox_id="private") as sandbox:
        said(sandbox, sh("mkdir new; echo x > new/file"))

        modes = {path.stat().st_mode & 0o077 for path in Path(sandbox.workspace).rglob("*")}
        home = Path(sandbox.workspace).parent

        assert modes == {0}
        assert home.stat().st_mode & 0o777 == 0o700


def test_memory_beyond_the_limit_cannot_be_had(driver, spec):
    with driver.start(spec, sandbox_id="hog") as sandbox:
        execution = sandbox.run(sh("python3 -c 'bytearray(600 * 1024 * 1024)'"))

        complaint = b"".join(output.data for output in execution)

        assert b"MemoryError" in complaint
        assert execution.exit.error().code == "command_failed"


def test_a_process_that_outlived_its_supervisor_ends_with_the_sandbox(driver, spec, walled):
    amount = a_long_sleep()
    with driver.start(spec, sandbox_id="betrayed") as sandbox:
        script = f"setsid setsid sleep {amount} & sleep 0.3; kill -KILL $PPID; sleep 60"
        with pytest.raises(SandboxLost):
            sandbox.run(sh(script)).wait()
        if not walled:  # behind the wall all ends with its first process
            assert sleepers(amount) == 1

    assert sleepers(amount) == 0


def test_a_root_that_cannot_be_made_is_said(tmp_path, spec):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SandboxUnavailable):
        LocalDriver(root=tmp_path / "file" / "sandboxes", allowed=True).start(
            spec, sandbox_id="nowhere"
        )


def test_a_worker_killed_without_warning_leaves_nothing_running(tmp_path):
    amount = a_long_sleep()
    kill_a_worker_with_a_sandbox(
        f"""
        from pathlib import Path
        from workers.sandbox.local import LocalDriver
        driver = LocalDriver(root=Path({str(tmp_path / "sandboxes")!r}), allowed=True)
        """,
        image="",
        amount=amount,
    )

    assert becomes_true(lambda: sleepers(amount) == 0)
    driver = LocalDriver(root=tmp_path / "sandboxes", allowed=True)
    assert driver.reap(lambda _: frozenset()) == 1
    assert found_by(driver) == frozenset()
