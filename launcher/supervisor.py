"""The process that stays: it owns every service, starts it again when it dies, and ends all in order.

It reads its plan from a file and tells its state in another, so that a launcher can come and go. It
is single-threaded: signals only wake the loop.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from datetime import UTC, datetime
from itertools import groupby
from types import FrameType
from typing import Final

from launcher import locks, processes, rotation, status
from launcher.child import Child
from launcher.home import Home
from launcher.service import read_plan
from launcher.status import State

TICK_SECONDS: Final = 0.5
ROTATION_SECONDS: Final = 5.0


class Supervisor:
    def __init__(self, home: Home) -> None:
        self.home = home
        self.children: list[Child] = []
        self.me = processes.this_process()
        self._plan = ""
        self._stop = False
        self._reload = True
        self._rotated = 0.0
        self._published: status.Status | None = None
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        self._listen()
        self._say("supervisor started")
        while not self._stop:
            self._turn()
            self._sleep(self._until_next())
        self._shut_down()
        self._say("supervisor ended")

    def _listen(self) -> None:
        signal.set_wakeup_fd(self._woken)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload = True

    def _turn(self) -> None:
        if self._reload:
            self._reload = False
            self._take_in_plan()
        self._reap()
        now = time.monotonic()
        for child in self.children:
            if child.state is State.WAITING and child.due <= now and not self._stop:
                child.start(now=now)
        self._publish()
        self._rotate(now)

    def _take_in_plan(self) -> None:
        """Start what is new in the plan, and what waits. What runs is left alone."""
        known = {child.service.name for child in self.children}
        self._plan, services = read_plan(self.home.plan)
        for service in services:
            if service.name not in known:
                self.children.append(Child(service, self.home.log(service.name)))
        for child in self.children:
            child.retry_now()

    def _reap(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.reap(now=now):
                self._say(f"{child.service.name} ended: {child.last_exit}")

    def _shut_down(self) -> None:
        """End services against the order they were started in, one group after the other."""
        self._say("stopping")
        for name, members in groupby(reversed(self.children), key=lambda c: c.service.group):
            self._end_group(name, list(members))
        self._publish(stopping=True)

    def _end_group(self, name: str, members: list[Child]) -> None:
        self._reap()
        for child in members:
            child.ask_to_stop()
        self._publish(stopping=True)
        deadline = time.monotonic() + max(child.service.grace for child in members)
        killed = False
        while any(child.is_running for child in members):
            self._sleep(0.1)
            self._reap()
            if not killed and time.monotonic() > deadline:
                killed = True
                self._say(f"{name} did not end in time and is killed")
                for child in members:
                    child.kill()
        self._publish(stopping=True)

    def _until_next(self) -> float:
        now = time.monotonic()
        waits = [child.due - now for child in self.children if child.state is State.WAITING]
        return max(0.0, min([TICK_SECONDS, *waits]))

    def _sleep(self, seconds: float) -> None:
        """Wait for a signal or for the time to pass. Signals sent meanwhile are not lost."""
        select.select([self._wake], [], [], seconds)
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            return

    def _publish(self, *, stopping: bool = False) -> None:
        now = status.compose(
            self.me,
            plan=self._plan,
            stopping=stopping,
            services=[child.status for child in self.children],
        )
        if now == self._published:
            return
        try:
            status.write(self.home.status, now)
        except OSError as error:
            # A full disk must not end the platform: the next change is written again.
            self._say(f"the state could not be written: {error}")
            return
        self._published = now

    def _rotate(self, now: float) -> None:
        if now - self._rotated < ROTATION_SECONDS:
            return
        self._rotated = now
        for log in self.home.logs.glob("*.log"):
            try:
                rotation.rotate(log)
            except OSError as error:
                self._say(f"{log.name} could not be rotated: {error}")

    def _say(self, text: str) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            sys.stdout.write(f"{stamp} {text}\n")
            sys.stdout.flush()
        except OSError:
            # The disk is full, and this is where one would say so.
            return


def main(home: Home) -> bool:
    """Run the supervisor of this clone, unless there is one."""
    try:
        # Whoever asks whether a supervisor runs holds the lock for an instant.
        with locks.held(home.run / "supervisor.lock", seconds=2):
            Supervisor(home).run()
    except locks.Held:
        return False
    return True
