from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
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
from workers.sandbox.base import SandboxSpec
from workers.sandbox.errors import LocalSandboxRefused, SandboxLost, SandboxUnavailable
from workers.sandbox.local import LocalDriver


@pytest.fixture
def driver(tmp_path):
    driver = LocalDriver(root=tmp_path / "sandboxes", allowed=True)
    yield driver
    assert found_by(driver) == frozenset()


@pytest.fixture
def impatient_driver(tmp_path):
    return LocalDriver(root=tmp_path / "sandboxes", allowed=True, silence_s=2)


@pytest.fixture
def spec():
    return SandboxSpec(image="ignored", memory_mb=512, pids=64)


class TestLocalDriver(SandboxDriverContract):
    pass


def test_it_refuses_to_exist_where_it_is_not_allowed(tmp_path):
    with pytest.raises(LocalSandboxRefused, match="isolates nothing"):
        LocalDriver(root=tmp_path, allowed=False)


def test_its_runs_are_shown_as_not_isolated(driver, spec):
    assert driver.isolation == "none"
    assert [finding.code for finding in driver.check(image="")] == ["no_isolation"]


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


def test_a_process_that_outlived_its_supervisor_ends_with_the_sandbox(driver, spec):
    amount = a_long_sleep()
    with driver.start(spec, sandbox_id="betrayed") as sandbox:
        script = f"setsid setsid sleep {amount} & sleep 0.3; kill -KILL $PPID; sleep 60"
        with pytest.raises(SandboxLost):
            sandbox.run(sh(script)).wait()
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
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from workers.sandbox.base import Command, SandboxSpec
        from workers.sandbox.local import LocalDriver
        driver = LocalDriver(root=Path({str(tmp_path / "sandboxes")!r}), allowed=True)
        sandbox = driver.start(SandboxSpec(image=""), sandbox_id="orphan")
        script = "trap '' TERM; setsid sleep {amount} & echo ready; sleep {amount}"
        for output in sandbox.run(Command(argv=("/bin/sh", "-c", script))):
            print(output.data.decode(), flush=True)
        """
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert worker.stdout.readline() == b"ready\n"
    assert becomes_true(lambda: sleepers(amount) == 2)

    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()

    assert becomes_true(lambda: sleepers(amount) == 0)
    driver = LocalDriver(root=tmp_path / "sandboxes", allowed=True)
    assert driver.reap(lambda _: frozenset()) == 1
    assert found_by(driver) == frozenset()
