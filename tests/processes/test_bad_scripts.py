"""Hostile and broken scripts, executed for real: each run ends with a clear code, nothing else does."""

from __future__ import annotations

import pytest

from apps.runs.models import Run, RunEvent
from apps.runs.types import FINAL, RunState
from apps.sandboxes.models import Sandbox
from tests.contracts.engine import required_driver
from tests.factories import make_actor, make_agent, make_project, make_run
from tests.support.platform import wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.docker]

# name -> (script, the run's state and error code)
SCRIPTS = {
    "exits non-zero": (
        "import sys; print('no such column: price', file=sys.stderr); sys.exit(3)",
        (RunState.FAILED, "command_failed"),
    ),
    "prints a gigabyte": (
        "import sys\nfor _ in range(1024): sys.stdout.write('x' * 1024 * 1024 + '\\n')",
        (RunState.SUCCEEDED, None),
    ),
    "forks without end": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        (RunState.FAILED, "command_timed_out"),
    ),
    "eats memory": (
        "eaten = []\nwhile True: eaten.append(bytearray(16 * 1024 * 1024))",
        (RunState.FAILED, "out_of_memory"),
    ),
    "ignores SIGTERM": (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
        (RunState.FAILED, "command_timed_out"),
    ),
    "fills the disk": (
        "import os\nwith open('full', 'wb') as file:\n    while True: file.write(bytes(1 << 20))",
        (RunState.FAILED, "command_failed"),
    ),
    "makes zombies": (
        "import os, time\n"
        "while True:\n"
        "    try:\n"
        "        if os.fork() == 0: os._exit(0)\n"
        "    except OSError: time.sleep(0.1)",
        (RunState.FAILED, "command_timed_out"),
    ),
    "leaves a child that left its session": (
        "import subprocess\n"
        "ignoring = 'trap \"\" TERM HUP; while true; do sleep 1; done'\n"
        "subprocess.Popen(['/bin/sh', '-c', ignoring], start_new_session=True)",
        (RunState.SUCCEEDED, None),
    ),
    "leaves a pipe for a file": (
        "import os; os.mkfifo(os.environ['AOS_OUT'] + '/pipe.txt')",
        (RunState.FAILED, "artifact_rejected"),
    ),
    "leaves more files than are taken": (
        "import os\nfor n in range(1001): open(os.environ['AOS_OUT'] + f'/{n}.txt', 'w').close()",
        (RunState.FAILED, "artifact_rejected"),
    ),
    "stops what it was started by": (
        "import os, signal; os.kill(-1, signal.SIGKILL)",
        (RunState.DEAD, "sandbox_lost"),
    ),
    "links to the password file": (
        "import os; os.symlink('/etc/passwd', os.environ['AOS_OUT'] + '/passwd.txt')",
        (RunState.FAILED, "artifact_rejected"),
    ),
    "leaves a file above its folder": (
        "import os; open(os.environ['AOS_OUT'] + '/../../x', 'w').write('x')",
        (RunState.FAILED, "command_failed"),
    ),
    "prints bytes that are no text": (
        "import sys; sys.stdout.buffer.write(b'\\x00\\xff\\xfe nul\\n::aos \\xff\\n')",
        (RunState.SUCCEEDED, None),
    ),
}


def _agent(organization, script):
    return make_agent(
        organization=organization,
        spec={
            "entry": "main.py",
            "files": {"main.py": script},
            "sandbox": {"memory_mb": 128, "pids": 64, "workspace_mb": 16},
            "output_limit_bytes": 64 * 1024,
        },
    )


@pytest.fixture
def _docker():
    required_driver().close()


@pytest.mark.usefixtures("_docker")
def test_a_bad_script_ends_its_own_run_and_nothing_else(platform):
    platform.overrides |= {"AOS_SANDBOX_DRIVER": "docker", "AOS_WORKER_SLOTS": "3"}
    platform.engine()
    worker = platform.worker()
    project = make_project()
    here = {"project": project, "by": make_actor(organization=project.organization)}
    runs = {
        name: make_run(
            **here, agent=_agent(project.organization, script), timeout_s=_timeout_s(end)
        )
        for name, (script, end) in SCRIPTS.items()
    }

    wait_for(
        "all ends", lambda: Run.objects.filter(state__in=FINAL).count() == len(runs), seconds=150
    )
    good = make_run(**here, agent=_agent(project.organization, "print('still fine')"))
    wait_for("a good run after them", lambda: _state(good) == RunState.SUCCEEDED, seconds=30)

    ends = {
        name: (run.state, (run.error or {}).get("code"))
        for name, run in ((name, Run.objects.get(pk=run.pk)) for name, run in runs.items())
    }
    assert ends == {name: end for name, (_, end) in SCRIPTS.items()}
    told = Run.objects.get(pk=runs["exits non-zero"].pk).error["detail"]
    assert "exit code 3" in told
    assert "no such column: price" in told
    assert RunEvent.objects.filter(run=runs["prints a gigabyte"]).count() < 200
    assert worker.poll() is None
    assert not Sandbox.objects.alive().exclude(run_id=None).exists()


def _timeout_s(end):
    """Little for what ends by it; for the rest more than a slow machine needs."""
    return 8 if "command_timed_out" in end else 60


def _state(run):
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)
