"""What the supervisor last said about itself and its services, in ``.aos/run/status.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from launcher import processes
from launcher.files import write_private
from launcher.processes import Process


class State(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"  # to be started again after a failure
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    name: str
    state: str
    pid: int | None = None
    started: int | None = None  # as in Process
    since: float = 0.0  # wall clock, for people
    restarts: int = 0
    last_exit: str | None = None

    @property
    def process(self) -> Process | None:
        if self.pid is None or self.started is None:
            return None
        return Process(self.pid, self.started)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    boot: str
    pid: int
    started: int
    plan: str  # which plan the supervisor has taken in
    stopping: bool = False
    services: list[ServiceStatus] = field(default_factory=list)

    @property
    def supervisor(self) -> Process:
        return Process(self.pid, self.started)

    @property
    def is_live(self) -> bool:
        return self.boot == processes.boot_id() and self.supervisor.is_alive

    @property
    def processes(self) -> list[Process]:
        """Everything recorded, if it was recorded in this boot: ids of an earlier one mean nothing."""
        if self.boot != processes.boot_id():
            return []
        return [service.process for service in self.services if service.process]

    def service(self, name: str) -> ServiceStatus | None:
        return next((service for service in self.services if service.name == name), None)


def write(path: Path, status: Status) -> None:
    write_private(path, json.dumps(asdict(status), indent=1))


def read(path: Path) -> Status | None:
    """Return the last status, or None where there never was a supervisor."""
    try:
        entry = json.loads(path.read_text("utf-8"))
        services = [ServiceStatus(**service) for service in entry.pop("services")]
        return Status(**entry, services=services)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        # Written by another version of AOS, or cut off by a full disk: the scan of /proc decides.
        return None


def compose(
    supervisor: Process, *, plan: str, stopping: bool, services: Iterable[ServiceStatus]
) -> Status:
    return Status(
        boot=processes.boot_id(),
        pid=supervisor.pid,
        started=supervisor.started,
        plan=plan,
        stopping=stopping,
        services=list(services),
    )


def age(since: float) -> str:
    seconds = int(max(0.0, time.time() - since))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h"
