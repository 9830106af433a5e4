"""One supervised service: starting it, noticing its end, waiting before the next try."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from launcher import processes
from launcher.files import append_handle
from launcher.processes import Process
from launcher.service import Service
from launcher.status import ServiceStatus, State

FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 30.0
# A service that ran this long has recovered: its next failure is a new story.
STEADY_SECONDS: Final = 60.0
# How long what a dead program left behind may take to notice, before it is killed.
LEFTOVER_GRACE: Final = 2.0


class Child:
    def __init__(self, service: Service, log: Path) -> None:
        self.service = service
        self.log = log
        self.state = State.WAITING
        self.restarts = 0
        self.last_exit: str | None = None
        self.process: Process | None = None
        self.due = 0.0
        self._popen: subprocess.Popen[bytes] | None = None
        self._wait = FIRST_WAIT
        self._begun = 0.0
        self._since = time.time()
        self._leftovers_until: float | None = None

    @property
    def status(self) -> ServiceStatus:
        return ServiceStatus(
            name=self.service.name,
            state=self.state,
            pid=self.process.pid if self.process else None,
            started=self.process.started if self.process else None,
            since=self._since,
            restarts=self.restarts,
            last_exit=self.last_exit,
        )

    @property
    def is_running(self) -> bool:
        return self._popen is not None

    def start(self, *, now: float) -> None:
        """Start the program, or set the time of the next try."""
        if not self._way_is_clear(now):
            self.due = now + FIRST_WAIT
            return
        handle = append_handle(self.log)
        try:
            self._popen = self._spawn(handle)
        except OSError as error:
            self.last_exit = f"could not be started: {error}"
            self._postpone(now)
            return
        finally:
            os.close(handle)
        self.process = processes.look(self._popen.pid)
        self.state = State.RUNNING
        self._begun = now
        self._since = time.time()

    def reap(self, *, now: float) -> bool:
        """Take note of the program's end; say whether it ended since the last call."""
        if self._popen is None or not _has_ended(self._popen.pid):
            return False
        # The zombie still holds its id, so this group can only be its own: nothing of it survives.
        _signal_group(self._popen.pid, signal.SIGKILL)
        self.last_exit = _describe(self._popen.wait())
        self._popen = self.process = None
        if self.state is State.STOPPING:
            self.state = State.STOPPED
            return True
        if now - self._begun >= STEADY_SECONDS:
            self._wait = FIRST_WAIT
        self.restarts += 1
        self._postpone(now)
        return True

    def retry_now(self) -> None:
        """Forget the failures so far: somebody has looked after their cause."""
        self._wait = FIRST_WAIT
        if self.state is State.WAITING:
            self.due = 0.0

    def ask_to_stop(self) -> None:
        if self._popen is None:
            self.state = State.STOPPED
            return
        self.state = State.STOPPING
        self._since = time.time()
        # Not reaped yet, so the id is still this program's.
        os.kill(self._popen.pid, signal.Signals[self.service.stop_signal])

    def kill(self) -> None:
        if self._popen is not None:
            os.kill(self._popen.pid, signal.SIGKILL)

    def _spawn(self, handle: int) -> subprocess.Popen[bytes]:
        service = self.service
        return subprocess.Popen(
            service.argv,
            env=service.env,
            cwd=service.cwd,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            user=service.uid,
            group=service.gid,
            extra_groups=None if service.gid is None else [],
            # A server's files are nobody else's; a sandbox must be able to read what a worker gives it.
            umask=0o077 if service.data else -1,
        )

    def _postpone(self, now: float) -> None:
        self.state = State.WAITING
        self.due = now + self._wait
        self._since = time.time()
        self._wait = min(LONGEST_WAIT, self._wait * 2)

    def _way_is_clear(self, now: float) -> bool:
        """Make sure nothing works in the data folder any more.

        Backends outlive a killed postmaster for a moment, or for as long as a query takes, and a new
        one refuses to start beside them. When none is left, neither its pid file means anything: the
        id in it may be another program's by now, which would make PostgreSQL refuse as well.
        """
        if self.service.data is None:
            return True
        folder = Path(self.service.data)
        leftovers = [p for p in processes.everyone() if processes.works_in(p, folder)]
        if not leftovers:
            self._leftovers_until = None
            if self.service.pid_file:
                Path(self.service.pid_file).unlink(missing_ok=True)
            return True
        if self._leftovers_until is None:
            self._leftovers_until = now + LEFTOVER_GRACE
        number = signal.SIGKILL if now > self._leftovers_until else signal.SIGQUIT
        for process in leftovers:
            process.send(number)
        return False


def _has_ended(pid: int) -> bool:
    """Look without reaping, so that the id stays taken until its group is cleared."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
