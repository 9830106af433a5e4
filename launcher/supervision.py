"""The launcher's hold on the supervisor: is there one, start one, give it more to do, end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from launcher import locks, status
from launcher.files import append_handle
from launcher.home import Home
from launcher.problems import with_log
from launcher.processes import MARKER
from launcher.service import Service, read_plan, write_plan
from launcher.status import State, Status

START_SECONDS: Final = 15.0
# After this a person who waits is told for what.
PATIENCE_SECONDS: Final = 3.0
# More than the graces of all groups together.
STOP_SECONDS: Final = 240.0
# A service that failed this often right after its start will not come up by waiting.
HOPELESS_RESTARTS: Final = 3
# Supervisors started by this process. They outlive it, so nobody waits for them.
_STARTED: list[subprocess.Popen[bytes]] = []


def current(home: Home) -> Status | None:
    """Return the status of the running supervisor, None when none runs."""
    if not home.run.is_dir() or not locks.is_held(home.run / "supervisor.lock"):
        return None
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        # Between taking its lock and writing its first status it is alive and silent.
        last = status.read(home.status)
        if last is not None and last.is_live:
            return last
        if not locks.is_held(home.run / "supervisor.lock"):
            return None
        time.sleep(0.05)
    raise with_log(
        "A supervisor holds its lock and says nothing.",
        step="Run `make stop`, then the same command again.",
        log=home.log("supervisor"),
    )


def extend(home: Home, services: Sequence[Service]) -> Status:
    """Have these services run, by the supervisor there is or a new one."""
    name = write_plan(home.plan, services)
    running = current(home)
    if running is None:
        _start(home)
    else:
        running.supervisor.send(signal.SIGHUP)
    return _wait(home, lambda now: now.plan == name)


def _start(home: Home) -> None:
    log = append_handle(home.log("supervisor"))
    try:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "launcher", "supervise"],
            cwd=home.project,
            env={**os.environ, "AOS_DATA_DIR": str(home.state), MARKER: str(home.state)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        _STARTED.append(supervisor)
    finally:
        os.close(log)


def _wait(home: Home, condition: Callable[[Status], bool]) -> Status:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        now = status.read(home.status)
        if now is not None and now.is_live and condition(now):
            return now
        if _STARTED and _STARTED[-1].poll() is not None and current(home) is None:
            break
        time.sleep(0.03)
    raise with_log(
        "The supervisor did not start.",
        step="Correct what the lines above name, then run the same command again.",
        log=home.log("supervisor"),
    )


def refuse_hopeless(home: Home, *, since: Status) -> None:
    """Raise the problem of a service that keeps dying, with the last lines it wrote."""
    now = status.read(home.status)
    if now is None or not now.is_live:
        raise with_log(
            "The supervisor ended while its services were starting.",
            step="Run the same command again: it ends what was left and starts anew.",
            log=home.log("supervisor"),
        )
    for service in now.services:
        before = since.service(service.name)
        earlier = before.restarts if before else 0
        if service.restarts - earlier >= HOPELESS_RESTARTS:
            raise with_log(
                f"{service.name} does not stay up ({service.last_exit}).",
                step="Correct what the lines above name, then run the same command again.",
                log=home.log(service.name),
            )


def stop(home: Home, *, tell: Callable[[str], None]) -> bool:
    """End the supervisor and all it runs; say whether there was one."""
    running = current(home)
    if running is None:
        _forget_ended()
        return False
    graces = {service.name: service.grace for service in read_plan(home.plan)[1]}
    supervisor, begin, told = running.supervisor, time.monotonic(), set[str]()
    supervisor.send(signal.SIGTERM)
    while supervisor.is_alive:
        time.sleep(0.1)
        _report(home, told, tell, graces)
        if time.monotonic() - begin > STOP_SECONDS:
            # Its services are orphans then, and the caller ends those.
            supervisor.send(signal.SIGKILL)
    _report(home, told, tell, graces)
    _forget_ended()
    return True


def _report(
    home: Home, told: set[str], tell: Callable[[str], None], graces: Mapping[str, float]
) -> None:
    """Say once what stopped, and once what is waited for."""
    now = status.read(home.status)
    for service in reversed(now.services if now else []):
        line = ""
        if service.state == State.STOPPED:
            line = f"{service.name} stopped"
        elif service.state == State.STOPPING and time.time() - service.since > PATIENCE_SECONDS:
            line = f"waiting for {service.name}, up to {graces.get(service.name, 0):.0f} s"
        if line and line not in told:
            told.add(line)
            tell(line)


def _forget_ended() -> None:
    _STARTED[:] = [supervisor for supervisor in _STARTED if supervisor.poll() is None]
