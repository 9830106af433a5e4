"""Scripts that take all they can get. Each ends with its own code and harms nobody else."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from tests.contracts.engine import small_spec
from tests.contracts.sandbox_driver import MIB, printed, python, said, seconds, sh
from workers.sandbox.base import Outcome
from workers.sandbox.errors import SandboxLost, WorkspaceFull

pytestmark = pytest.mark.docker

SMALL_FOLDERS = {"/tmp": 64, "/dev/shm": 64, "/run/aos": 1}  # noqa: S108 - of the sandbox
HOG = "blocks = []\nwhile True: blocks.append(bytearray(10 * 1024 * 1024))"


def test_a_memory_eater_is_told_apart_from_a_failure(sandbox):
    ended = sandbox.run(python(HOG)).wait()

    assert ended.outcome == Outcome.OUT_OF_MEMORY
    assert ended.error().code == "out_of_memory"
    assert said(sandbox, sh("echo usable")) == "usable\n"


def test_a_child_that_ate_the_memory_is_told_too(sandbox):
    sandbox.put_files({"hog.py": HOG.encode()})

    ended = sandbox.run(sh("python3 hog.py; exit 3")).wait()

    assert (ended.outcome, ended.code) == (Outcome.OUT_OF_MEMORY, 3)


def test_a_child_that_ate_the_memory_of_a_success_is_forgiven(sandbox):
    sandbox.put_files({"hog.py": HOG.encode()})

    assert sandbox.run(sh("python3 hog.py; exit 0")).wait().outcome == Outcome.SUCCEEDED


def test_memory_is_not_blamed_for_an_ordinary_kill(sandbox, driver):
    ended = sandbox.run(sh("kill -KILL $$")).wait()

    assert (ended.outcome, ended.signal) == (Outcome.FAILED, 9)
    assert not driver.saw_out_of_memory(sandbox.id)


def test_the_engine_saw_the_memory_eater_too(sandbox, driver):
    sandbox.run(python(HOG)).wait()

    assert driver.saw_out_of_memory(sandbox.id)


def test_many_small_eaters_do_not_take_the_supervisor_with_them(driver):
    script = (
        "import os, time\n"
        "for _ in range(40):\n"
        "    if os.fork() == 0:\n"
        "        block = bytearray(os.urandom(4 * 1024 * 1024) * 2); time.sleep(30)\n"
        "os.wait(); raise SystemExit(5)\n"
    )
    with driver.start(small_spec(memory_mb=96), sandbox_id=str(uuid4())) as sandbox:
        ended = sandbox.run(python(script)).wait()

        assert ended.outcome == Outcome.OUT_OF_MEMORY
        assert said(sandbox, sh("echo usable")) == "usable\n"


def test_a_fork_bomb_is_bounded_and_ended(sandbox, driver, spec):
    started = time.monotonic()

    ended = sandbox.run(
        sh("bomb() { bomb | bomb & }; bomb; sleep 60", timeout=seconds(2), grace=seconds(1))
    ).wait()

    assert ended.outcome in {Outcome.TIMED_OUT, Outcome.FAILED}
    assert time.monotonic() - started < 20
    assert said(sandbox, sh("echo usable")) == "usable\n"
    with driver.start(spec, sandbox_id=str(uuid4())) as other:
        assert said(other, sh("echo unharmed")) == "unharmed\n"


def test_more_processes_than_allowed_cannot_be_had(sandbox):
    script = (
        "import os, time\n"
        "count = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(30); os._exit(0)\n"
        "        count += 1\n"
        "except BlockingIOError: print(count)\n"
    )

    count = int(said(sandbox, python(script)))

    assert 50 <= count < 64


def test_a_disk_filler_meets_the_end_of_the_workspace(sandbox):
    execution = sandbox.run(sh("cat /dev/zero > big; wc -c < big"))

    complaint = printed(execution, 2)

    assert b"No space left" in complaint
    assert said(sandbox, sh("wc -c < big; rm big")).strip() == str(128 * MIB)
    assert said(sandbox, sh("echo usable")) == "usable\n"


def test_temporary_folders_have_an_end_too(sandbox):
    for folder, size in SMALL_FOLDERS.items():
        told = said(
            sandbox, sh(f"cat /dev/zero > {folder}/big; wc -c < {folder}/big; rm {folder}/big")
        )
        assert int(told) == size * MIB


def test_files_that_do_not_fit_are_said_to_be_too_large(sandbox):
    with pytest.raises(WorkspaceFull, match="workspace_mb"):
        sandbox.put_files({f"part{n}": b"x" * 16 * MIB for n in range(12)})

    assert said(sandbox, sh("rm -f part*; echo usable")) == "usable\n"


def test_names_without_end_harm_only_their_maker(sandbox):
    script = "n = 0\nwhile True:\n    open(f'out/{n}', 'w').close(); n += 1\n"

    execution = sandbox.run(python(script, timeout=seconds(60)))

    assert b"No space left" in printed(execution, 2)
    assert execution.exit.outcome == Outcome.FAILED
    assert said(sandbox, sh("ls out | wc -l")).strip().startswith("655")


def test_killing_everything_it_can_see_only_ends_the_sandbox(sandbox):
    with pytest.raises(SandboxLost):
        sandbox.run(python("import os; os.kill(-1, 9)")).wait()


def test_a_busy_loop_gets_its_share_and_no_more(driver):
    script = (
        "import os, time\n"
        "end = time.monotonic() + 2\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        while time.monotonic() < end: pass\n"
        "        os._exit(0)\n"
        "for _ in range(3): os.wait()\n"
        "times = os.times(); print(times.children_user + times.children_system)\n"
    )
    with driver.start(small_spec(cpu=0.5), sandbox_id=str(uuid4())) as sandbox:
        used = float(said(sandbox, python(script)))

    assert 0 < used < 0.5 * 2 * 1.5
