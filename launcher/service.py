"""A service is a program the supervisor keeps running; the plan is the list of them, in start order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from launcher.files import write_private


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    name: str  # engine-2
    group: str  # engine: services of one group are stopped together
    argv: list[str]
    env: dict[str, str] = field(repr=False)
    cwd: str
    stop_signal: str = "SIGTERM"
    grace: float = 15.0  # seconds between the stop signal and SIGKILL
    uid: int | None = None
    gid: int | None = None
    # A folder only one such program may work in. What a dead one left there is ended first.
    data: str | None = None
    pid_file: str | None = None


def write_plan(path: Path, services: Iterable[Service]) -> str:
    """Write the plan and return the name by which the supervisor will say it has read it."""
    text = json.dumps([asdict(service) for service in services], indent=1)
    write_private(path, text)
    return _name(text)


def read_plan(path: Path) -> tuple[str, list[Service]]:
    text = path.read_text("utf-8")
    return _name(text), [Service(**entry) for entry in json.loads(text)]


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
