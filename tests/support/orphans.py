"""Workers that are killed while a command runs in a sandbox of theirs."""

from __future__ import annotations

import signal
import subprocess
import sys
from textwrap import dedent

from tests.contracts.sandbox_driver import becomes_true, sleepers
from tests.support.servers import PROJECT


def kill_a_worker_with_a_sandbox(making: str, *, image: str, amount: str) -> None:
    """Kill one by surprise. ``making`` is the code that makes its driver; two processes sleep so long."""
    program = dedent(making) + dedent(
        f"""
        from workers.sandbox.base import Command, SandboxSpec
        sandbox = driver.start(SandboxSpec(image={image!r}), sandbox_id="orphan")
        script = "trap '' TERM; setsid sleep {amount} & echo ready; sleep {amount}"
        for output in sandbox.run(Command(argv=("/bin/sh", "-c", script))):
            print(output.data.decode(), flush=True)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=PROJECT
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        assert becomes_true(lambda: sleepers(amount) == 2)
        worker.send_signal(signal.SIGKILL)
